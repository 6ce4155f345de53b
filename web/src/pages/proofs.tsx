// Proofs: was what callers were given what providers sent?

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Copy, Empty, Head, Sheet, Shown, Time } from "../parts/basics";
import { Dialog } from "../parts/forms";
import { Table, type Column } from "../parts/table";
import { useLoaded } from "../state/loaded";

type Proof = Schemas["ProofShown"];
const TONES: Record<string, "good" | "warn" | "bad" | "" | "info"> = {
  same: "good", "changed:quirk": "info", partial: "warn", lost: "warn", unproved: "", changed: "bad",
};

function Verdict({ of }: { of: string }) {
  return of ? <Badge tone={TONES[of] ?? ""}>{of}</Badge> : null;
}

const COLUMNS: readonly Column<Proof>[] = [
  { name: "seq", title: "No.", num: true, cell: (one) => one.seq },
  { name: "at", title: "Time", cell: (one) => <Time at={one.at} /> },
  { name: "call", title: "Call", cell: (one) => <code>{one.request_id}</code> },
  { name: "kind", title: "What was heard", cell: (one) => one.kind },
  { name: "verdict", title: "Verdict", cell: (one) => <Verdict of={one.verdict} /> },
];

export function Proofs() {
  const [verdict, setVerdict] = useState("");
  const query = { limit: 500, ...(verdict ? { verdict: verdict as Schemas["Verdict"] } : {}) };
  const loaded = useLoaded(() => done(api.GET("/admin/v1/proofs", { params: { query } })), [verdict], { every: 10_000 });
  const [open, setOpen] = useState<string>();
  return (
    <>
      <Head title="Proofs">What providers sent and what callers were given, compared and chained. No word of an answer is kept.</Head>
      <Chain />
      <div class="filters">
        <select aria-label="Verdict" value={verdict} onChange={(event) => setVerdict(event.currentTarget.value)}>
          <option value="">All verdicts</option>
          {Object.keys(TONES).map((one) => <option key={one}>{one}</option>)}
        </select>
      </div>
      <Sheet flush>
        <Shown of={loaded}>
          {({ proofs }) => proofs.length ? <Table label="Proofs" tall rows={proofs} columns={COLUMNS} id={(one) => String(one.seq)} open={(one) => setOpen(one.request_id)} /> : (
            <Empty title={verdict ? "No proof with this verdict" : "Nothing is proved yet"}>
              {!verdict && <><p>Proofs are made where that is switched on.</p><Copy text="TOKENHUB_PROOF=tools tokenhub serve" /></>}
            </Empty>
          )}
        </Shown>
      </Sheet>
      {open && <Opened id={open} close={() => setOpen(undefined)} />}
    </>
  );
}

function Chain() {
  const [report, setReport] = useState<Schemas["AuditReport"]>();
  const verify = async () => setReport(await done(api.GET("/admin/v1/proofs/verify")));
  return (
    <Sheet title="The chain" more={<Button small act={verify}>Verify</Button>}>
      {!report ? <p class="quiet">Verify that every entry is what was written when it was written.</p> : (
        <p class={`note ${report.ok ? "good" : "bad"}`} role="status">
          {report.ok ? `All ${report.entries} entries are as they were written; ${report.signed} of them are signed.` : report.findings.map((one) => `Entry ${one.seq}: ${one.text}`).join(" ")}
        </p>
      )}
    </Sheet>
  );
}

function Opened({ id, close }: { id: string; close: () => void }) {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/proofs/{id}", { params: { path: { id } } })), [id]);
  return (
    <Dialog kind="drawer" title={`Proof of ${id}`} close={close}>
      <Shown of={loaded}>{(story) => <pre>{JSON.stringify(story, null, 2)}</pre>}</Shown>
    </Dialog>
  );
}
