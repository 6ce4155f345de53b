/** What every Node client of the matrix shares: see `conversation.py`, whose words and features these are. */

import { z } from 'zod';

/** A PNG of one dot, in base64. */
export const PIXEL =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

export const HELLO = 'Say hello';
export const WEATHER = 'Use get_weather for the city of Paris';
export const BOTH = 'Use get_weather and get_time for the city of Paris';
export const WHICH = 'Which city is Paris';

export const CITY = {
  type: 'object',
  properties: { city: { type: 'string' } },
  required: ['city'],
  additionalProperties: false,
};
export const TOOLS = ['get_weather', 'get_time'];
export const UNKNOWN = 'nobody-serves-this';
export const WITHOUT_THINKING = 'without thinking';
export const NOT_SHOWN = 'not shown';

/** What the structured answer has to be. */
export const Capital = z.object({ city: z.string(), inhabitants: z.number().int() });

/** Fail, naming both, where two values differ as JSON. */
export function same(seen, wanted) {
  const [one, other] = [JSON.stringify(seen), JSON.stringify(wanted)];
  if (one !== other) throw new Error(`${one} instead of ${other}`);
}

/** Fail where the answer is not the simulated one to `question`. */
export function said(text, question) {
  if (!text?.startsWith(`You asked: "${question}"`)) throw new Error(`${text} does not answer ${question}`);
}

/** Fail where an answer does not repeat what the tools said. */
export function told(text, results) {
  for (const result of results) {
    if (!text?.includes(`answered: "${result}"`)) throw new Error(`${text} does not tell ${result}`);
  }
}

/** Fail where a count of the usage is missing. */
export function counted(...tokens) {
  if (!tokens.every((count) => count > 0)) throw new Error(`usage is ${tokens}`);
}

/** Fail where a structured answer does not fit. */
export function parsed(value) {
  Capital.parse(value);
}

/** Return the error of the wanted class that a call ends with. */
export async function refused(kind, call) {
  try {
    await call();
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error('no error');
}

/** Try each feature and print what came of it, as one line of JSON. */
export async function perform(features) {
  for (const [feature, attempt] of Object.entries(features)) {
    let line;
    try {
      line = { feature, ok: true, detail: (await attempt()) ?? '' };
    } catch (error) {
      line = { feature, ok: false, detail: `${error.constructor.name}: ${error.message}` };
    }
    process.stdout.write(`${JSON.stringify(line)}\n`);
  }
}
