// How a call is shown, wherever it comes up.

import { Badge, Time } from "./basics";
import { count, millis, money } from "./format";
import type { Column } from "./table";
import type { CallEvent } from "../state/events";

export function Outcome({ of }: { of: { outcome: string; status: number; error_class?: string | undefined } }) {
  if (of.outcome === "ok") return <Badge tone="good">ok</Badge>;
  if (of.outcome === "passed") return <Badge>passed {of.status}</Badge>;
  if (of.outcome === "cancelled") return <Badge tone="warn">cancelled</Badge>;
  return <Badge tone="bad">{of.error_class || of.status}</Badge>;
}

export const served = (model: string | undefined, provider: string | undefined): string =>
  model ? `${model} @ ${provider ?? ""}` : "";

/** The class of a row. */
export const failed = (one: { outcome: string }): string => (one.outcome === "error" ? "failed" : "");

export const COLUMNS: readonly Column<CallEvent>[] = [
  { name: "at", title: "Time", cell: (one) => <Time at={one.timestamp} /> },
  { name: "outcome", title: "Outcome", cell: (one) => <Outcome of={one} /> },
  { name: "program", title: "Program", cell: (one) => one.program ?? "" },
  { name: "asked", title: "Asked for", cell: (one) => one.requested_model ?? "" },
  { name: "served", title: "Served by", cell: (one) => served(one.model_id, one.provider_id) },
  { name: "why", title: "Why", cell: (one) => <span class="quiet why" title={one.error_msg ?? one.reason}>{one.error_msg ?? one.reason ?? ""}</span> },
  { name: "tries", title: "Tries", num: true, cell: (one) => one.attempts ?? "" },
  { name: "ttft", title: "First token", num: true, cell: (one) => (one.ttft_ms === undefined ? "" : millis(one.ttft_ms)) },
  { name: "total", title: "Total", num: true, cell: (one) => (one.latency_ms === undefined ? "" : millis(one.latency_ms)) },
  { name: "tokens", title: "Tokens", num: true, cell: (one) => count((one.input_tokens ?? 0) + (one.output_tokens ?? 0)) },
  { name: "cost", title: "Cost", num: true, cell: (one) => (one.cost_usd ? money(one.cost_usd) : "") },
];
