// Who changed what, and whether that record is whole.

import { useEffect, useState } from "preact/hooks";
import { api, done, type Refused, type Schemas } from "../api/client";
import { Badge, Button, Empty, Facts, Head, Problem, Sheet, Time } from "../parts/basics";
import { Dialog } from "../parts/forms";
import { Table, type Column } from "../parts/table";
import { changes } from "../state/events";

type Entry = Schemas["AuditEntry"];
const TONES = { done: "good", denied: "bad", refused: "warn", failed: "bad" } as const;

const COLUMNS: readonly Column<Entry>[] = [
  { name: "seq", title: "No.", num: true, cell: (one) => one.seq },
  { name: "at", title: "Time", cell: (one) => <Time at={one.at} /> },
  { name: "actor", title: "Who", cell: (one) => one.actor },
  { name: "action", title: "Did", cell: (one) => one.action },
  { name: "subject", title: "To", cell: (one) => one.subject },
  { name: "outcome", title: "Outcome", cell: (one) => <Badge tone={TONES[one.outcome as keyof typeof TONES] ?? ""}>{one.outcome}{one.count > 1 && ` × ${one.count}`}</Badge> },
  { name: "source", title: "From", cell: (one) => <span class="quiet">{one.source}</span> },
];

export function Audit() {
  const [action, setAction] = useState("");
  const [actor, setActor] = useState("");
  const [outcome, setOutcome] = useState("");
  const [rows, setRows] = useState<readonly Entry[]>([]);
  const [next, setNext] = useState<number | null>(null);
  const [error, setError] = useState<Refused>();
  const [open, setOpen] = useState<Entry>();
  const load = async (before?: number) => {
    const query = Object.fromEntries(Object.entries({ action, actor, outcome, before, limit: 200 }).filter(([, value]) => value));
    try {
      const page = await done(api.GET("/admin/v1/audit", { params: { query } }));
      setRows((was) => (before === undefined ? page.entries : [...was, ...page.entries]));
      setNext(page.next);
      setError(undefined);
    } catch (refused) {
      setError(refused as Refused);
    }
  };
  useEffect(() => {
    const timer = setTimeout(() => void load(), 200);
    return () => clearTimeout(timer);
  }, [action, actor, outcome, changes.value]);
  return (
    <>
      <Head title="Audit" more={<a class="button" href="/admin/v1/audit/export" download="audit.jsonl">Export</a>}>
        Every change, every refusal, every secret that was read. Entries are chained: a changed or missing one shows.
      </Head>
      <Verified />
      <div class="filters">
        <input aria-label="Action" placeholder="Action" value={action} onInput={(event) => setAction(event.currentTarget.value)} />
        <input aria-label="Actor" placeholder="Who" value={actor} onInput={(event) => setActor(event.currentTarget.value)} />
        <select aria-label="Outcome" value={outcome} onChange={(event) => setOutcome(event.currentTarget.value)}>
          <option value="">All outcomes</option>
          {Object.keys(TONES).map((one) => <option key={one}>{one}</option>)}
        </select>
      </div>
      {error && <Problem error={error} again={() => load()} />}
      <Sheet flush>
        {rows.length ? <Table label="Audit log" tall rows={rows} columns={COLUMNS} id={(one) => String(one.seq)} open={setOpen} {...(next == null ? {} : { more: () => void load(next) })} /> : <Empty title="No entry matches" />}
      </Sheet>
      {next != null && <div><Button act={() => load(next)}>More</Button></div>}
      {open && <Opened of={open} close={() => setOpen(undefined)} />}
    </>
  );
}

function Verified() {
  const [report, setReport] = useState<Schemas["AuditReport"]>();
  const verify = async () => setReport(await done(api.GET("/admin/v1/audit/verify")));
  return (
    <Sheet title="The chain" more={<Button small act={verify}>Verify</Button>}>
      {!report ? <p class="quiet">Verify that every entry is what was written when it was written.</p> : (
        <div class="stack">
          <p class={`note ${report.ok ? "good" : "bad"}`} role="status">
            {report.ok ? `All ${report.entries} entries are as they were written; ${report.signed} of them are signed.` : `${report.findings.length} findings in ${report.entries} entries.`}
          </p>
          {report.findings.map((one) => <p key={`${one.seq} ${one.what}`} class="bad">Entry {one.seq}: {one.text}</p>)}
          <Facts of={[["Head", <code>{report.head}</code>], ["Signed up to", report.covered]]} />
        </div>
      )}
    </Sheet>
  );
}

function Opened({ of, close }: { of: Entry; close: () => void }) {
  return (
    <Dialog kind="drawer" title={`Entry ${of.seq}`} close={close}>
      <div class="stack">
        <Facts of={[
          ["Time", <Time at={of.at} />], ["Who", of.actor], ["From", of.source], ["With", of.program], ["Did", of.action], ["To", of.subject],
          ["Outcome", of.outcome], ["Why", of.reason], ["Request", of.request_id], ["Hash", <code>{of.hash}</code>], ["Before it", <code>{of.previous}</code>],
        ]} />
        {of.before && <><h3>Before</h3><pre>{JSON.stringify(of.before, null, 2)}</pre></>}
        {of.after && <><h3>After</h3><pre>{JSON.stringify(of.after, null, 2)}</pre></>}
      </div>
    </Dialog>
  );
}
