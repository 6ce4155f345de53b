// The admin API: typed by the server's own OpenAPI document.

import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** What the server refuses to do, in its words. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly kind: string,
    readonly param: string | undefined,
  ) {
    super(message);
  }
}

// What writes have to show. It is in no storage: whoever reads one of those finds nothing.
let csrf = "";
let onLost: () => void = () => {};

export function showing(token: string): void {
  csrf = token;
}

export function whenLost(act: () => void): void {
  onLost = act;
}

const guard: Middleware = {
  onRequest({ request }) {
    if (request.method !== "GET") request.headers.set("x-csrf-token", csrf);
    return request;
  },
  onResponse({ response, schemaPath }) {
    const opening = schemaPath === "/admin/v1/session" || schemaPath === "/admin/v1/login";
    if (response.status === 401 && !opening) onLost();
    return response;
  },
};

export const api = createClient<paths>({ baseUrl: location.origin, fetch: (request) => fetch(request) });
api.use(guard);

interface Answered<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** Return the body of a good answer; throws `Refused` for every other one, and where there is no answer. */
export async function done<T>(asking: Promise<Answered<T>>): Promise<T> {
  let answered: Answered<T>;
  try {
    answered = await asking;
  } catch {
    throw new Refused("TokenHub does not answer. Is it still running?", 0, "unreachable", undefined);
  }
  const { data, error, response } = answered;
  if (response.ok) return data as T;
  throw refusal(error, response.status);
}

function refusal(error: unknown, status: number): Refused {
  const told = (error as { error?: { message?: string; type?: string; param?: string } } | undefined)?.error;
  return new Refused(told?.message ?? `the server answered ${status}`, status, told?.type ?? "", told?.param);
}
