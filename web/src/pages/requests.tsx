// The request log: search, filter, look into one.

import { useCallback, useEffect, useMemo, useState } from "preact/hooks";
import { useSearch } from "wouter-preact";
import { api, done, type Refused, type Schemas } from "../api/client";
import { Button, Empty, Head, Problem, Sheet, Time } from "../parts/basics";
import { failed, Outcome, served } from "../parts/calls";
import { CallDrawer } from "../parts/call";
import { count, millis, nano } from "../parts/format";
import { Table, type Column } from "../parts/table";

type Entry = Schemas["LogEntry"];
const PAGE = 200;
/** Of those behind the first page, which is to be there soon. */
const MORE = 500;

const COLUMNS: readonly Column<Entry>[] = [
  { name: "at", title: "Time", cell: (one) => <Time at={one.at} />, by: (one) => one.at },
  { name: "outcome", title: "Outcome", cell: (one) => <Outcome of={one} />, by: (one) => one.outcome },
  { name: "program", title: "Program", cell: (one) => one.program, by: (one) => one.program },
  { name: "key", title: "Key", cell: (one) => one.key_id ?? "", by: (one) => one.key_id ?? "" },
  { name: "asked", title: "Asked for", cell: (one) => one.requested_model, by: (one) => one.requested_model },
  { name: "served", title: "Served by", cell: (one) => served(one.model_id, one.provider_id), by: (one) => one.model_id },
  { name: "why", title: "Why", cell: (one) => <span class="quiet">{one.message || one.reason}</span> },
  { name: "tries", title: "Tries", num: true, cell: (one) => one.attempts.length || "", by: (one) => one.attempts.length },
  { name: "ttft", title: "First token", num: true, cell: (one) => (one.ttft_ms == null ? "" : millis(one.ttft_ms)), by: (one) => one.ttft_ms ?? -1 },
  { name: "total", title: "Total", num: true, cell: (one) => millis(one.total_ms), by: (one) => one.total_ms ?? -1 },
  { name: "in", title: "In", num: true, cell: (one) => count(one.input_tokens), by: (one) => one.input_tokens },
  { name: "out", title: "Out", num: true, cell: (one) => count(one.output_tokens), by: (one) => one.output_tokens },
  { name: "cost", title: "Cost", num: true, cell: (one) => nano(one.cost_nanousd), by: (one) => one.cost_nanousd },
];

const NONE = {
  q: "",
  model: "",
  provider: "",
  key: "",
  project: "",
  host: "",
  program: "",
  status: "",
  mode: "",
  directive: "",
  tag: "",
  error: "",
  since: "",
  until: "",
  outcome: "",
};
type Filters = typeof NONE;

const WORDS: readonly (readonly [keyof Filters, string])[] = [
  ["model", "Model"],
  ["provider", "Provider"],
  ["key", "Key"],
  ["project", "Project"],
  ["host", "Host"],
  ["program", "Program"],
  ["status", "Status, 404 or 5xx"],
  ["mode", "Mode"],
  ["tag", "Tag"],
  ["error", "Text of the error"],
];
const CHOICES: readonly (readonly [keyof Filters, string, readonly string[]])[] = [
  ["outcome", "All outcomes", ["ok", "error", "cancelled", "passed"]],
  ["directive", "Any directive", ["honoured", "denied", "invalid", "ignored"]],
];
const TIMES: readonly (readonly [keyof Filters, string])[] = [
  ["since", "From"],
  ["until", "To"],
];

/** What the server is asked for: times as seconds since the epoch, empty fields not at all. */
function asked(filters: Filters): Record<string, string> {
  const query = Object.entries(filters).filter(([, value]) => value);
  return Object.fromEntries(
    query.map(([name, value]) => [name, name === "since" || name === "until" ? String(new Date(value).getTime() / 1000) : value]),
  );
}

export function Requests() {
  const linked = new URLSearchParams(useSearch()).get("id") ?? undefined;
  const [filters, setFilters] = useState(NONE);
  const [settled, setSettled] = useState(NONE);
  const [open, setOpen] = useState<string | undefined>(linked);
  const [rows, setRows] = useState<readonly Entry[]>([]);
  const [next, setNext] = useState<number | null>();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Refused>();
  const show = useCallback((one: Entry) => setOpen(one.id), []);
  useEffect(() => setOpen(linked), [linked]);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(filters), 250);
    return () => clearTimeout(timer);
  }, [filters]);
  const query = useMemo(() => asked(settled), [settled]);
  const load = async (before?: number) => {
    setBusy(true);
    try {
      const at = async (place?: number) =>
        done(api.GET("/admin/v1/logs", { params: { query: { ...query, ...(place === undefined ? { limit: PAGE } : { limit: MORE, before: place }) } as never } }));
      let page = await at(before);
      // One answer looks at so many calls and no more: where none of them matches, there may be older ones that do.
      while (page.logs.length === 0 && page.next != null) page = await at(page.next);
      setRows((was) => (before === undefined ? page.logs : [...was, ...page.logs]));
      setNext(page.next);
      setError(undefined);
    } catch (refused) {
      setError(refused as Refused);
    } finally {
      setBusy(false);
    }
  };
  useEffect(() => void load(), [query]);
  const more = () => {
    if (!busy && next != null) void load(next);
  };
  const set = (name: keyof Filters) => (event: { currentTarget: { value: string } }) => {
    const value = event.currentTarget.value;
    setFilters((was) => ({ ...was, [name]: value }));
  };
  return (
    <>
      <Head
        title="Requests"
        more={
          <>
            {(["csv", "jsonl"] as const).map((format) => (
              <a key={format} class="button" download href={`/admin/v1/logs/export?${new URLSearchParams({ ...query, format })}`}>
                Export {format.toUpperCase()}
              </a>
            ))}
            <Button act={() => load()}>Load again</Button>
          </>
        }
      >
        Every call that came to its end, with its cost and the decision behind it.
      </Head>
      <div class="filters">
        <input class="search" type="search" aria-label="Search" placeholder="Search ids, programs, models, errors" value={filters.q} onInput={set("q")} />
        {WORDS.map(([name, title]) => (
          <input key={name} aria-label={title} placeholder={title} value={filters[name]} onInput={set(name)} />
        ))}
        {CHOICES.map(([name, all, choices]) => (
          <select key={name} aria-label={all} value={filters[name]} onChange={set(name)}>
            <option value="">{all}</option>
            {choices.map((one) => <option key={one}>{one}</option>)}
          </select>
        ))}
        {TIMES.map(([name, title]) => (
          <label key={name} class="quiet">
            {title} <input type="datetime-local" aria-label={title} value={filters[name]} onInput={set(name)} />
          </label>
        ))}
        {Object.values(filters).some(Boolean) && <Button kind="plain" act={() => setFilters(NONE)}>Clear</Button>}
      </div>
      {error && <Problem error={error} again={() => load()} />}
      <Sheet flush>
        {rows.length === 0 && !busy && !error ? (
          <Empty title={Object.keys(query).length ? "No call matches" : "No calls yet"}>
            <p>Calls are kept for as long as the retention setting says; their text only where that was asked for.</p>
          </Empty>
        ) : (
          <Table label="Requests" tall rows={rows} columns={COLUMNS} id={(one) => one.id} open={show} more={more} mark={failed} />
        )}
      </Sheet>
      <p class="quiet" role="status">
        {busy ? "Loading…" : `${rows.length.toLocaleString("en")} calls${next == null ? ", all that match" : ""}`}{" "}
        {next != null && !busy && <Button small act={more}>More</Button>}
      </p>
      {open && <CallDrawer id={open} close={() => setOpen(undefined)} />}
    </>
  );
}
