/** `openai` for Node, Responses: `node openai_responses.mjs MODEL`. */

import OpenAI from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import * as the from './conversation.mjs';

const client = new OpenAI();
const model = process.argv[2];
const tools = the.TOOLS.map((name) => ({ type: 'function', name, parameters: the.CITY, strict: true }));

const user = (content) => ({ role: 'user', content });
const whole = (asked) => client.responses.create({ model, store: false, ...asked });
const streamed = (asked) => client.responses.stream({ model, store: false, ...asked }).finalResponse();

/** An item of an answer as the next request holds it; what the SDK's parser added is not of the API. */
const given = ({ parsed_arguments: _, ...item }) => item;

function plain(answer) {
  the.said(answer.output_text, the.HELLO);
  the.same(answer.status, 'completed');
  the.counted(answer.usage.input_tokens, answer.usage.output_tokens);
}

async function withTools(call, text, names) {
  const answer = await call({ input: [user(text)], tools });
  const calls = answer.output.filter((item) => item.type === 'function_call');
  the.same(calls.map((one) => one.name), names);
  the.same(calls.map((one) => JSON.parse(one.arguments)), names.map(() => ({ city: 'Paris' })));
  const results = calls.map((one) => ({
    type: 'function_call_output',
    call_id: one.call_id,
    output: `21 of ${one.name}`,
  }));
  const last = await call({ input: [user(text), ...answer.output.map(given), ...results], tools });
  the.told(last.output_text, names.map((name) => `21 of ${name}`));
}

await the.perform({
  whole: async () => plain(await whole({ input: [user(the.HELLO)] })),
  stream: async () => plain(await streamed({ input: [user(the.HELLO)] })),
  tool: () => withTools(whole, the.WEATHER, ['get_weather']),
  'tool, streamed': () => withTools(streamed, the.WEATHER, ['get_weather']),
  'parallel tools': () => withTools(whole, the.BOTH, the.TOOLS),
  'parallel tools, streamed': () => withTools(streamed, the.BOTH, the.TOOLS),
  image: async () => {
    const picture = { type: 'input_image', detail: 'auto', image_url: `data:image/png;base64,${the.PIXEL}` };
    plain(await whole({ input: [user([{ type: 'input_text', text: the.HELLO }, picture])] }));
  },
  'structured output': async () => {
    const answer = await client.responses.parse({
      model,
      store: false,
      input: [user(the.WHICH)],
      text: { format: zodTextFormat(the.Capital, 'capital') },
    });
    the.parsed(answer.output_parsed);
  },
  thinking: async () => {
    const more = { reasoning: { effort: 'high', summary: 'auto' }, include: ['reasoning.encrypted_content'] };
    const first = await streamed({ input: [user(the.HELLO)], ...more });
    plain(first);
    plain(await whole({ input: [user(the.HELLO), ...first.output.map(given), user(the.HELLO)], ...more }));
    const shown = first.output.some(
      (item) => item.type === 'reasoning' && (item.summary.length > 0 || item.encrypted_content),
    );
    return shown ? '' : the.WITHOUT_THINKING;
  },
  'unknown model': async () => {
    const error = await the.refused(OpenAI.NotFoundError, () =>
      whole({ model: the.UNKNOWN, input: [user(the.HELLO)] }),
    );
    the.same([error.status, error.code], [404, 'model_not_found']);
  },
});
