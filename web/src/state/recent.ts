// The latest calls of the log, page after page; what charts over the recent past are made of.

import { api, done, type Schemas } from "../api/client";

export type Entry = Schemas["LogEntry"];
const PAGE = 1000;

/** Return up to `most` calls, newest first, those before `since` (seconds of the epoch) left out. */
export async function recent(most: number, since: number): Promise<Entry[]> {
  const found: Entry[] = [];
  let before: number | undefined;
  while (found.length < most) {
    const query = before === undefined ? { limit: PAGE } : { limit: PAGE, before };
    const page = await done(api.GET("/admin/v1/logs", { params: { query } }));
    const fresh = page.logs.filter((one) => one.at >= since);
    found.push(...fresh);
    if (page.next === null || fresh.length < page.logs.length) break;
    before = page.next;
  }
  return found.slice(0, most);
}

export function quantile(values: readonly number[], share: number): number | null {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? null;
}
