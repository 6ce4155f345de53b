// Who is told of events over HTTP: add one, try it, see what waits and what was given up.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Copy, Empty, Facts, Head, Sheet, Shown, Tabs, Time, toast } from "../parts/basics";
import { Asking, Check, Dialog, Input } from "../parts/forms";
import { words } from "../parts/format";
import { Table, type Column } from "../parts/table";
import { TELLING } from "../state/events";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

type Hook = Schemas["WebhookShown"];

const COLUMNS: readonly Column<Hook>[] = [
  { name: "url", title: "Address", cell: (one) => <strong>{one.url}</strong>, by: (one) => one.url },
  { name: "kinds", title: "Told of", cell: (one) => one.kinds.map(words).join(", ") },
  { name: "state", title: "State", cell: (one) => <Badge tone={one.enabled ? "good" : ""}>{one.enabled ? "on" : "off"}</Badge>, by: (one) => String(one.enabled) },
  { name: "made", title: "Made", cell: (one) => <Time at={one.created_at} />, by: (one) => one.created_at },
];

export function Webhooks() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/webhooks")), [], { follow: true });
  const [adding, setAdding] = useState(false);
  const [secret, setSecret] = useState<string>();
  const [open, setOpen] = useState<string>();
  const opened = loaded.value?.items.find((one) => one.id === open);
  const add = may("admin") && <Button kind="main" act={() => setAdding(true)}>Add a webhook</Button>;
  return (
    <>
      <Head title="Webhooks" more={add}>
        Who is told of events over HTTP, signed as <a href="/docs/events#webhooks">Standard Webhooks</a>, at least once each.
      </Head>
      <Sheet flush>
        <Shown of={loaded}>
          {({ items }) => items.length === 0 ? (
            <Empty title="Nobody is told">
              <p>A webhook gets each event of its kinds as a signed POST: a provider that goes down, a budget near its end, a key that expires.</p>
            </Empty>
          ) : <Table label="Webhooks" rows={items} columns={COLUMNS} id={(one) => one.id} open={(one) => setOpen(one.id)} />}
        </Shown>
      </Sheet>
      {adding && <Add close={() => setAdding(false)} then={(made) => { setSecret(made.secret); loaded.again(); }} />}
      {secret && <Secret of={secret} close={() => setSecret(undefined)} />}
      {opened && <Opened of={opened} close={() => setOpen(undefined)} again={loaded.again} told={setSecret} />}
    </>
  );
}

function Secret({ of, close }: { of: string; close: () => void }) {
  return (
    <Dialog title="What signs its events" close={close}>
      <p class="note warn">It is shown now and never again. The receiver verifies each event by it.</p>
      <Copy text={of} />
      <div class="buttons"><Button kind="main" act={close}>I have it</Button></div>
    </Dialog>
  );
}

function Add({ close, then }: { close: () => void; then: (made: Schemas["WebhookMade"]) => void }) {
  const [url, setUrl] = useState("");
  const [kinds, setKinds] = useState<readonly string[]>(["health_change", "budget_threshold"]);
  const save = async () => then(await done(api.POST("/admin/v1/webhooks", { body: { url: url.trim(), kinds: [...kinds] } })));
  return (
    <Asking title="Add a webhook" close={close} save={save} verb="Add">
      {(wrong) => (
        <>
          <Input label="Address" type="url" value={url} set={setUrl} wrong={wrong("url")} placeholder="https://ops.example/hook" required />
          <Kinds of={kinds} set={setKinds} wrong={wrong("kinds")} />
        </>
      )}
    </Asking>
  );
}

function Kinds({ of, set, wrong }: { of: readonly string[]; set: (kinds: readonly string[]) => void; wrong?: string | undefined }) {
  const turn = (kind: string) => (on: boolean) => set(on ? [...of, kind] : of.filter((one) => one !== kind));
  return (
    <fieldset class="choices">
      <legend>Told of</legend>
      {TELLING.map((kind) => <Check key={kind} label={words(kind)} value={of.includes(kind)} set={turn(kind)} />)}
      {wrong && <span class="bad" role="alert">{wrong}</span>}
    </fieldset>
  );
}

function Opened({ of, close, again, told }: { of: Hook; close: () => void; again: () => void; told: (secret: string) => void }) {
  const path = { params: { path: { id: of.id } } };
  const [came, setCame] = useState<Schemas["Tested"]>();
  const [removing, setRemoving] = useState(false);
  const test = async () => setCame(await done(api.POST("/admin/v1/webhooks/{id}/test", path)));
  const turn = async () => {
    await done(api.PATCH("/admin/v1/webhooks/{id}", { ...path, body: { enabled: !of.enabled } }));
    again();
  };
  const renew = async () => {
    const { secret } = await done(api.POST("/admin/v1/webhooks/{id}/secret", path));
    close();
    told(secret);
  };
  const remove = async () => {
    await done(api.DELETE("/admin/v1/webhooks/{id}", path));
    toast("It is told no more.");
    close();
    again();
  };
  return (
    <Dialog kind="drawer" title={of.url} close={close}>
      <div class="stack">
        <div class="buttons">
          {may("operator") && <Button kind="main" act={test}>Send a test</Button>}
          {may("admin") && <Button act={turn}>{of.enabled ? "Switch off" : "Switch on"}</Button>}
          {may("admin") && <Button act={renew}>New secret</Button>}
          {may("admin") && <Button kind="danger" act={() => setRemoving(true)}>Remove</Button>}
        </div>
        {came && (
          <p class={`note ${came.told ? "good" : "bad"}`} role="status">
            {came.told ? `It was taken: ${came.status}.` : `It was not taken: ${came.status || ""} ${came.cause}`}
          </p>
        )}
        <Facts of={[["Id", <code>{of.id}</code>], ["Told of", of.kinds.map(words).join(", ")], ["Made", <Time at={of.created_at} />], ["Changed", <Time at={of.updated_at} />]]} />
        <Deliveries of={of} />
      </div>
      {removing && (
        <Asking title={`Remove ${of.url}?`} close={() => setRemoving(false)} save={remove} verb="Remove" danger>
          <p>What still waits for it is not told.</p>
        </Asking>
      )}
    </Dialog>
  );
}

function Deliveries({ of }: { of: Hook }) {
  const [state, setState] = useState<"waiting" | "dead">("waiting");
  const path = { id: of.id };
  const loaded = useLoaded(() => done(api.GET("/admin/v1/webhooks/{id}/deliveries", { params: { path, query: { state } } })), [of.id, state], { every: 5000 });
  const retry = async () => {
    const { retried } = await done(api.POST("/admin/v1/webhooks/{id}/retry", { params: { path } }));
    toast(`${retried} are tried anew.`);
    loaded.again();
  };
  const dead = state === "dead" && (loaded.value?.items.length ?? 0) > 0;
  return (
    <Sheet title="Deliveries" flush more={dead && may("operator") && <Button small act={retry}>Try them anew</Button>}>
      <Tabs label="Which deliveries" at={state} go={setState} of={[["waiting", "Waiting"], ["dead", "Given up"]]} />
      <Shown of={loaded}>
        {({ items }) => items.length === 0 ? (
          <Empty title={state === "waiting" ? "Nothing waits" : "Nothing was given up"}>
            <p>{state === "waiting" ? "What happened was told." : "Nine tries over thirty hours, then it would be here with its reason."}</p>
          </Empty>
        ) : (
          <div class="table-frame" role="region" aria-label="Deliveries, scrolled" tabIndex={0}>
            <table aria-label="Deliveries">
              <thead><tr><th scope="col">Event</th><th scope="col">Happened</th><th scope="col" class="num">Tries</th><th scope="col">Next</th><th scope="col">Why</th></tr></thead>
              <tbody>
                {items.map((one) => (
                  <tr key={one.seq}>
                    <td>{words(one.kind)}</td><td><Time at={one.made_at} /></td><td class="num">{one.attempts}</td>
                    <td>{one.due_at == null ? "never" : <Time at={one.due_at} />}</td><td class="quiet">{words(one.cause)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Shown>
    </Sheet>
  );
}
