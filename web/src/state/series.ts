// Curves of the time series, on a grid of equal stretches.

import { api, done } from "../api/client";
import type { paths } from "../api/schema";

type Query = paths["/admin/v1/tsdb/query"]["get"]["parameters"]["query"];
const asked = (query: Query) => done(api.GET("/admin/v1/tsdb/query", { params: { query } }));
type Drawn = Awaited<ReturnType<typeof asked>>;

export const PARTS = ["model", "provider", "program", "key", "project", "host", "mode", "status"] as const;
export type Part = (typeof PARTS)[number];

export interface Range {
  since: number;
  until: number;
}

export interface Grid {
  at: number[];
  step: number;
  /** One name for each value of the dimension, the largest first; what has no curve of its own comes last. */
  names: string[];
  /** A metric of a value; `empty` stands where there was nothing. */
  of: <T extends number | null>(metric: string, name: string, empty: T) => (number | T)[];
  /** Calls of series that their day had no room for. */
  others: number;
  complete: boolean;
}

interface Wish {
  metrics: readonly string[];
  range: Range;
  step?: number | undefined;
  by?: Part | "cause";
  limit?: number;
}

export async function series({ metrics, range, step, by, limit = 6 }: Wish): Promise<Grid> {
  const query = {
    metric: metrics.join(","),
    start: range.since,
    end: range.until,
    limit,
    ...(step !== undefined && { step }),
    ...(by !== undefined && { group_by: by }),
  };
  return gridded(await asked(query));
}

const named = (value: string | null, values: number): string => value || (value === null && values > 1 ? `${values} others` : "none");

function gridded(drawn: Drawn): Grid {
  const { start, end, step } = drawn;
  const at: number[] = [];
  for (let moment = start; moment < end; moment += step) at.push(moment);
  const names: string[] = [];
  const found = new Map<string, Map<number, number>>();
  for (const one of drawn.series) {
    const name = drawn.group_by === null ? "all" : named(one.value, one.values);
    if (!names.includes(name)) names.push(name);
    found.set(`${one.metric} ${name}`, new Map(one.points as [number, number][]));
  }
  return {
    at,
    step,
    names,
    of: (metric, name, empty) => {
      const points = found.get(`${metric} ${name}`);
      return at.map((moment) => points?.get(moment) ?? empty);
    },
    others: drawn.other_calls,
    complete: drawn.complete,
  };
}

export const summed = (values: readonly number[]): number => values.reduce((total, one) => total + one, 0);
