/** `openai` for Node, chat completions: `node openai_chat.mjs MODEL`. */

import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import * as the from './conversation.mjs';

const client = new OpenAI();
const model = process.argv[2];
const tools = the.TOOLS.map((name) => ({ type: 'function', function: { name, parameters: the.CITY } }));

const user = (content) => ({ role: 'user', content });
const whole = (asked) => client.chat.completions.create({ model, ...asked });
const streamed = (asked) =>
  client.chat.completions
    .stream({ model, stream_options: { include_usage: true }, ...asked })
    .finalChatCompletion();

function plain(answer) {
  const [choice] = answer.choices;
  the.said(choice.message.content, the.HELLO);
  the.same(choice.finish_reason, 'stop');
  the.counted(answer.usage.prompt_tokens, answer.usage.completion_tokens);
}

async function withTools(call, text, names) {
  const [choice] = (await call({ messages: [user(text)], tools })).choices;
  the.same(choice.finish_reason, 'tool_calls');
  const calls = choice.message.tool_calls;
  the.same(calls.map((one) => one.function.name), names);
  the.same(calls.map((one) => JSON.parse(one.function.arguments)), names.map(() => ({ city: 'Paris' })));
  const results = calls.map((one) => ({
    role: 'tool',
    tool_call_id: one.id,
    content: `21 of ${one.function.name}`,
  }));
  const [last] = (await call({ messages: [user(text), choice.message, ...results], tools })).choices;
  the.told(last.message.content, names.map((name) => `21 of ${name}`));
  the.same(last.finish_reason, 'stop');
}

await the.perform({
  whole: async () => plain(await whole({ messages: [user(the.HELLO)] })),
  stream: async () => plain(await streamed({ messages: [user(the.HELLO)] })),
  tool: () => withTools(whole, the.WEATHER, ['get_weather']),
  'tool, streamed': () => withTools(streamed, the.WEATHER, ['get_weather']),
  'parallel tools': () => withTools(whole, the.BOTH, the.TOOLS),
  'parallel tools, streamed': () => withTools(streamed, the.BOTH, the.TOOLS),
  image: async () => {
    const picture = { type: 'image_url', image_url: { url: `data:image/png;base64,${the.PIXEL}` } };
    plain(await whole({ messages: [user([{ type: 'text', text: the.HELLO }, picture])] }));
  },
  'structured output': async () => {
    const answer = await client.chat.completions.parse({
      model,
      messages: [user(the.WHICH)],
      response_format: zodResponseFormat(the.Capital, 'capital'),
    });
    the.parsed(answer.choices[0].message.parsed);
  },
  thinking: async () => {
    // Chat completions do not show what came of the effort.
    const more = { reasoning_effort: 'high' };
    const first = await whole({ messages: [user(the.HELLO)], ...more });
    const turn = { role: 'assistant', content: first.choices[0].message.content };
    plain(await whole({ messages: [user(the.HELLO), turn, user(the.HELLO)], ...more }));
    return the.NOT_SHOWN;
  },
  'unknown model': async () => {
    const error = await the.refused(OpenAI.NotFoundError, () =>
      whole({ model: the.UNKNOWN, messages: [user(the.HELLO)] }),
    );
    the.same([error.status, error.code], [404, 'model_not_found']);
  },
});
