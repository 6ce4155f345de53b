// Decisions as they are made: filter, hold, look into one.

import { useCallback, useMemo, useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Button, Copy, Empty, Head, Sheet } from "../parts/basics";
import { COLUMNS, failed } from "../parts/calls";
import { CallDrawer } from "../parts/call";
import { Ongoing } from "../parts/ongoing";
import { Table } from "../parts/table";
import { calls, type CallEvent } from "../state/events";

const ALL = "all";

export function Live() {
  const [held, setHeld] = useState<readonly CallEvent[]>();
  const [text, setText] = useState("");
  const [kind, setKind] = useState(ALL);
  const [open, setOpen] = useState<string>();
  const show = useCallback((one: CallEvent) => setOpen(one.request_id), []);
  const all = held ?? calls.value;
  const shown = useMemo(() => all.filter((one) => matches(one, text.toLowerCase(), kind)), [all, text, kind]);
  const behind = held ? calls.value.length - held.length : 0;
  return (
    <>
      <Head
        title="Live"
        more={
          <Button act={() => setHeld(held ? undefined : calls.value)} aria-pressed={held !== undefined}>
            {held ? `Go on${behind > 0 ? ` (${behind} new)` : ""}` : "Hold"}
          </Button>
        }
      >
        Every call the moment it ends, with who served it and why.
      </Head>
      <Ongoing />
      <div class="filters">
        <input class="search" type="search" aria-label="Filter" placeholder="Program, model, provider, reason, error" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <select aria-label="Outcome" value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
          <option value={ALL}>All outcomes</option>
          <option value="ok">Answered</option>
          <option value="error">Failed</option>
          <option value="retried">Tried more than once</option>
          <option value="lossy">With losses</option>
        </select>
      </div>
      <Sheet flush>
        {all.length === 0 ? (
          <Empty title="Nothing yet">
            <p>Calls appear here while this page is open. Send one through the proxy:</p>
            <Copy text="tokenhub run -- python your_program.py" />
            <p><Link href="/ui/setup">How to set up a client</Link></p>
          </Empty>
        ) : shown.length === 0 ? (
          <Empty title="No call matches"><p>{all.length} calls are left out by the filter.</p></Empty>
        ) : (
          <Table label="Decisions" tall rows={shown} columns={COLUMNS} id={(one) => one.request_id} open={show} mark={failed} />
        )}
      </Sheet>
      {open && <CallDrawer id={open} close={() => setOpen(undefined)} />}
    </>
  );
}

function matches(one: CallEvent, text: string, kind: string): boolean {
  if (kind === "ok" && one.outcome !== "ok") return false;
  if (kind === "error" && one.outcome !== "error") return false;
  if (kind === "retried" && (one.attempts ?? 0) < 2) return false;
  if (kind === "lossy" && !one.losses?.length) return false;
  if (!text) return true;
  const told = [one.program, one.requested_model, one.model_id, one.provider_id, one.reason, one.error_msg, one.error_class, one.origin_host, one.request_id];
  return told.some((value) => value?.toLowerCase().includes(text));
}
