// The request log: search, filter, look into one.

import { useEffect, useMemo, useState } from "preact/hooks";
import { useSearch } from "wouter-preact";
import { api, done, type Refused } from "../api/client";
import { Button, Empty, Head, Problem, Sheet, Time } from "../parts/basics";
import { Outcome, served } from "../parts/calls";
import { CallDrawer } from "../parts/call";
import { count, millis, nano } from "../parts/format";
import { Table, type Column } from "../parts/table";
import type { Entry } from "../state/recent";

const PAGE = 200;

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

interface Filters {
  q: string;
  model: string;
  provider: string;
  key: string;
  project: string;
  outcome: string;
}
const NONE: Filters = { q: "", model: "", provider: "", key: "", project: "", outcome: "" };

export function Requests() {
  const asked = new URLSearchParams(useSearch()).get("id") ?? undefined;
  const [filters, setFilters] = useState(NONE);
  const [settled, setSettled] = useState(NONE);
  const [open, setOpen] = useState<string | undefined>(asked);
  const [rows, setRows] = useState<readonly Entry[]>([]);
  const [next, setNext] = useState<number | null>();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Refused>();
  useEffect(() => setOpen(asked), [asked]);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(filters), 250);
    return () => clearTimeout(timer);
  }, [filters]);
  const query = useMemo(() => Object.fromEntries(Object.entries(settled).filter(([, value]) => value)), [settled]);
  const load = async (before?: number) => {
    setBusy(true);
    try {
      const page = await done(api.GET("/admin/v1/logs", { params: { query: { limit: PAGE, ...query, ...(before === undefined ? {} : { before }) } as never } }));
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
      <Head title="Requests" more={<Button act={() => load()}>Load again</Button>}>
        Every call that came to its end, with its cost and the decision behind it.
      </Head>
      <div class="filters">
        <input class="search" type="search" aria-label="Search" placeholder="Search ids, programs, models, errors" value={filters.q} onInput={set("q")} />
        <input aria-label="Model" placeholder="Model" value={filters.model} onInput={set("model")} />
        <input aria-label="Provider" placeholder="Provider" value={filters.provider} onInput={set("provider")} />
        <input aria-label="Key" placeholder="Key" value={filters.key} onInput={set("key")} />
        <input aria-label="Project" placeholder="Project" value={filters.project} onInput={set("project")} />
        <select aria-label="Outcome" value={filters.outcome} onChange={set("outcome")}>
          <option value="">All outcomes</option>
          {["ok", "error", "cancelled", "passed"].map((one) => <option key={one}>{one}</option>)}
        </select>
        {Object.values(filters).some(Boolean) && <Button kind="plain" act={() => setFilters(NONE)}>Clear</Button>}
      </div>
      {error && <Problem error={error} again={() => load()} />}
      <Sheet flush>
        {rows.length === 0 && !busy && !error ? (
          <Empty title={Object.keys(query).length ? "No call matches" : "No calls yet"}>
            <p>Calls are kept for as long as the retention setting says; their text only where that was asked for.</p>
          </Empty>
        ) : (
          <Table label="Requests" tall rows={rows} columns={COLUMNS} id={(one) => one.id} open={(one) => setOpen(one.id)} more={more} mark={(one) => (one.outcome === "error" ? "failed" : "")} />
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
