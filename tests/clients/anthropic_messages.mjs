/** `@anthropic-ai/sdk` for Node: `node anthropic_messages.mjs MODEL`. */

import Anthropic from '@anthropic-ai/sdk';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import * as the from './conversation.mjs';

const client = new Anthropic();
const model = process.argv[2];
const tools = the.TOOLS.map((name) => ({ name, input_schema: the.CITY }));

const user = (content) => ({ role: 'user', content });
const turn = (answer) => ({ role: 'assistant', content: answer.content });
const whole = (asked) => client.messages.create({ model, max_tokens: 4096, ...asked });
const streamed = (asked) => client.messages.stream({ model, max_tokens: 4096, ...asked }).finalMessage();
const texts = (answer) =>
  answer.content
    .filter((block) => block.type === 'text')
    .map((block) => block.text)
    .join('');

function plain(answer) {
  the.said(texts(answer), the.HELLO);
  the.same(answer.stop_reason, 'end_turn');
  the.counted(answer.usage.input_tokens, answer.usage.output_tokens);
}

async function withTools(call, text, names) {
  const answer = await call({ messages: [user(text)], tools });
  the.same(answer.stop_reason, 'tool_use');
  const calls = answer.content.filter((block) => block.type === 'tool_use');
  the.same(calls.map((one) => one.name), names);
  the.same(calls.map((one) => one.input), names.map(() => ({ city: 'Paris' })));
  const results = calls.map((one) => ({
    type: 'tool_result',
    tool_use_id: one.id,
    content: `21 of ${one.name}`,
  }));
  const last = await call({ messages: [user(text), turn(answer), user(results)], tools });
  the.told(texts(last), names.map((name) => `21 of ${name}`));
  the.same(last.stop_reason, 'end_turn');
}

await the.perform({
  whole: async () => plain(await whole({ messages: [user(the.HELLO)] })),
  stream: async () => plain(await streamed({ messages: [user(the.HELLO)] })),
  tool: () => withTools(whole, the.WEATHER, ['get_weather']),
  'tool, streamed': () => withTools(streamed, the.WEATHER, ['get_weather']),
  'parallel tools': () => withTools(whole, the.BOTH, the.TOOLS),
  'parallel tools, streamed': () => withTools(streamed, the.BOTH, the.TOOLS),
  image: async () => {
    const source = { type: 'base64', media_type: 'image/png', data: the.PIXEL };
    plain(await whole({ messages: [user([{ type: 'text', text: the.HELLO }, { type: 'image', source }])] }));
  },
  'structured output': async () => {
    const answer = await client.messages.parse({
      model,
      max_tokens: 4096,
      messages: [user(the.WHICH)],
      output_config: { format: zodOutputFormat(the.Capital) },
    });
    the.parsed(answer.parsed_output);
  },
  thinking: async () => {
    const more = { thinking: { type: 'enabled', budget_tokens: 1024 } };
    const first = await streamed({ messages: [user(the.HELLO)], ...more });
    plain(first);
    plain(await whole({ messages: [user(the.HELLO), turn(first), user(the.HELLO)], ...more }));
    const shown = first.content.some((block) => block.type.endsWith('thinking'));
    return shown ? '' : the.WITHOUT_THINKING;
  },
  'unknown model': async () => {
    const error = await the.refused(Anthropic.NotFoundError, () =>
      whole({ model: the.UNKNOWN, messages: [user(the.HELLO)] }),
    );
    the.same([error.status, error.error?.error?.type], [404, 'not_found_error']);
  },
});
