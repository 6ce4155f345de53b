// Durable calls: what runs, how it went, and an end to what should not go on.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Copy, Empty, Facts, Head, Sheet, Shown, Time, toast } from "../parts/basics";
import { Dialog } from "../parts/forms";
import { absolute, millis } from "../parts/format";
import { Table, type Column } from "../parts/table";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

type Workflow = Schemas["WorkflowShown"];
const TONES = {
  RUNNING: "info", COMPLETED: "good", FAILED: "bad", TIMED_OUT: "bad", TERMINATED: "warn", CANCELED: "warn", CONTINUED_AS_NEW: "",
} as const;

function Status({ of }: { of: Workflow }) {
  return <Badge tone={TONES[of.status]}>{of.status.toLowerCase().replaceAll("_", " ")}</Badge>;
}

const COLUMNS: readonly Column<Workflow>[] = [
  { name: "id", title: "Call", cell: (one) => <code>{one.workflow_id}</code> },
  { name: "type", title: "Definition", cell: (one) => one.type, by: (one) => one.type },
  { name: "status", title: "Status", cell: (one) => <Status of={one} />, by: (one) => one.status },
  { name: "start", title: "Begun", cell: (one) => <Time at={one.start_time} />, by: (one) => one.start_time },
  { name: "took", title: "Took", num: true, cell: (one) => millis(one.duration_ms), by: (one) => one.duration_ms ?? -1 },
];

export function Workflows() {
  const [status, setStatus] = useState("");
  const query = { limit: 200, ...(status ? { status: status as Workflow["status"] } : {}) };
  const loaded = useLoaded(() => done(api.GET("/admin/v1/workflows", { params: { query } })), [status], { every: 5000 });
  const [open, setOpen] = useState<Workflow>();
  return (
    <>
      <Head title="Workflows">Durable calls: they go on whatever dies, by Temporal.</Head>
      <div class="filters">
        <select aria-label="Status" value={status} onChange={(event) => setStatus(event.currentTarget.value)}>
          <option value="">All</option>
          {Object.keys(TONES).map((one) => <option key={one} value={one}>{one.toLowerCase().replaceAll("_", " ")}</option>)}
        </select>
      </div>
      <Sheet flush>
        <Shown of={loaded}>
          {({ workflows, temporal_enabled }) =>
            !temporal_enabled ? (
              <Empty title="Durable calls are off">
                <p>With a Temporal server beside TokenHub, calls that say <code>durable=true</code> survive the end of any process.</p>
                <Copy text="TOKENHUB_TEMPORAL_ENABLED=true TOKENHUB_TEMPORAL_HOST=localhost:7233 tokenhub serve" />
              </Empty>
            ) : workflows.length === 0 ? (
              <Empty title="No workflow"><p>A call becomes one by the directive <code>durable=true</code>, or by <code>TOKENHUB_TEMPORAL_CALLS=all</code>.</p></Empty>
            ) : (
              <Table label="Workflows" tall rows={workflows} columns={COLUMNS} id={(one) => one.run_id} open={setOpen} />
            )
          }
        </Shown>
      </Sheet>
      {open && <Opened of={open} close={() => setOpen(undefined)} again={loaded.again} />}
    </>
  );
}

function Opened({ of, close, again }: { of: Workflow; close: () => void; again: () => void }) {
  const path = { params: { path: { id: of.workflow_id } } };
  const history = useLoaded(() => done(api.GET("/admin/v1/workflows/{id}/history", path)), [of.workflow_id]);
  const cancel = async () => {
    await done(api.POST("/admin/v1/workflows/{id}/cancel", path));
    toast("It was asked to end.");
    again();
    close();
  };
  return (
    <Dialog kind="drawer" title={`Workflow ${of.workflow_id}`} close={close}>
      <div class="stack">
        {of.status === "RUNNING" && may("operator") && <div class="buttons"><Button kind="danger" act={cancel}>End it</Button></div>}
        <Facts of={[
          ["Status", <Status of={of} />],
          ["Definition", of.type],
          ["Run", <code>{of.run_id}</code>],
          ["Begun", <Time at={of.start_time} />],
          ["Ended", of.close_time == null ? "not yet" : <Time at={of.close_time} />],
          ["Took", millis(of.duration_ms)],
        ]} />
        <Sheet title="History" flush>
          <Shown of={history}>
            {({ events }) => (
              <table aria-label="History">
                <tbody>
                  {events.map((one) => (
                    <tr key={String((one as Record<string, unknown>)["event_id"])}>
                      {Object.values(one as Record<string, unknown>).map((value, index) => (
                        <td key={index}>{typeof value === "number" && value > 1e9 ? absolute(value) : String(value ?? "")}</td>
                      ))}
                    </tr>
                  ))}
                </tbody>
              </table>
            )}
          </Shown>
        </Sheet>
      </div>
    </Dialog>
  );
}
