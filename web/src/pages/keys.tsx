// Clients' keys: what each is good for, and how it is changed and taken away.

import { useMemo, useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Copy, Empty, Facts, Head, Sheet, Shown, Time } from "../parts/basics";
import { Asking, Check, Choice, Dialog, Field, Input, names, numeric } from "../parts/forms";
import { Table, type Column } from "../parts/table";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

type Key = Schemas["ApiKeyShown"];
const SCOPES = ["chat", "embeddings", "passthrough", "plan"] as const;

function State({ of }: { of: Key }) {
  if (!of.enabled) return <Badge>off</Badge>;
  if (of.expired) return <Badge tone="bad">expired</Badge>;
  if (of.rotation_due) return <Badge tone="warn">rotation is due</Badge>;
  return <Badge tone="good">on</Badge>;
}

const list = (of: readonly string[]) => (of.length === 0 ? <span class="warn">none</span> : of.join(", "));

const COLUMNS: readonly Column<Key>[] = [
  { name: "name", title: "Key", cell: (one) => <strong>{one.name}</strong>, by: (one) => one.name },
  { name: "prefix", title: "Begins with", cell: (one) => <code>{one.prefix}…</code> },
  { name: "state", title: "State", cell: (one) => <State of={one} /> },
  { name: "project", title: "Project", cell: (one) => one.project, by: (one) => one.project },
  { name: "scopes", title: "For", cell: (one) => list(one.scopes) },
  { name: "models", title: "Models", cell: (one) => list(one.models) },
  { name: "used", title: "Last used", cell: (one) => <Time at={one.last_used_at} />, by: (one) => one.last_used_at ?? 0 },
  { name: "expires", title: "Expires", cell: (one) => <Time at={one.expires_at} />, by: (one) => one.expires_at ?? Infinity },
];

export function Keys() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/apikeys", { params: { query: { limit: 500 } } })), [], { follow: true });
  const [asking, setAsking] = useState(false);
  const [made, setMade] = useState<Schemas["ApiKeyMade"]>();
  const [open, setOpen] = useState<string>();
  const [text, setText] = useState("");
  const all = loaded.value?.items ?? [];
  const shown = useMemo(() => all.filter((one) => `${one.name} ${one.project} ${one.prefix} ${one.tags.join(" ")}`.toLowerCase().includes(text.toLowerCase())), [all, text]);
  const add = may("operator") && <Button kind="main" act={() => setAsking(true)}>Make a key</Button>;
  const opened = all.find((one) => one.id === open);
  return (
    <>
      <Head title="API keys" more={add}>Who may call, what for, and how much. A key works wherever an SDK can put one, and in the proxy's URL.</Head>
      <div class="filters"><input class="search" type="search" aria-label="Filter" placeholder="Name, project, tag" value={text} onInput={(event) => setText(event.currentTarget.value)} /></div>
      <Sheet flush>
        <Shown of={loaded}>
          {() => shown.length ? <Table label="Keys" tall rows={shown} columns={COLUMNS} id={(one) => one.id} open={(one) => setOpen(one.id)} /> : (
            <Empty title={all.length ? "No key matches" : "No key yet"}>
              {!all.length && <><p>On this machine calls are let in without one, unless that is switched off. A key tells programs apart, and bounds them.</p>{add}</>}
            </Empty>
          )}
        </Shown>
      </Sheet>
      {asking && <Make close={() => setAsking(false)} then={(key) => { setMade(key); loaded.again(); }} />}
      {opened && <Opened of={opened} close={() => setOpen(undefined)} again={loaded.again} show={setMade} />}
      {made && <Made of={made} close={() => setMade(undefined)} />}
    </>
  );
}

interface Draft {
  name: string; project: string; tags: string; scopes: readonly string[]; models: string; providers: string; hosts: string;
  rpm: string; tpm: string; concurrency: string; output: string; expires: string;
}

function drafted(of?: Key): Draft {
  const number = (value: number | null | undefined) => (value == null ? "" : String(value));
  return {
    name: of?.name ?? "", project: of?.project ?? "", tags: of?.tags.join(", ") ?? "", scopes: of?.scopes ?? ["chat", "embeddings"],
    models: of?.models.join(", ") ?? "*", providers: of?.providers.join(", ") ?? "*", hosts: of?.hosts.join(", ") ?? "*",
    rpm: number(of?.limits.requests_per_minute), tpm: number(of?.limits.tokens_per_minute),
    concurrency: number(of?.limits.concurrency), output: number(of?.limits.max_output_tokens), expires: "",
  };
}

function bodied(draft: Draft): Schemas["NewKeyBody"] {
  const body: Schemas["NewKeyBody"] = {
    name: draft.name.trim(), project: draft.project.trim(), tags: names(draft.tags), scopes: [...draft.scopes],
    models: names(draft.models), providers: names(draft.providers), hosts: names(draft.hosts),
    limits: {
      requests_per_minute: numeric(draft.rpm) ?? null, tokens_per_minute: numeric(draft.tpm) ?? null,
      concurrency: numeric(draft.concurrency) ?? null, max_output_tokens: numeric(draft.output) ?? null,
    },
  };
  if (draft.expires) body.expires_in = draft.expires;
  return body;
}

function Fields({ draft, set, wrong }: { draft: Draft; set: (draft: Draft) => void; wrong: (param: string) => string | undefined }) {
  const put = (name: keyof Draft) => (value: string) => set({ ...draft, [name]: value });
  const scope = (name: string) => (on: boolean) => set({ ...draft, scopes: on ? [...draft.scopes, name] : draft.scopes.filter((one) => one !== name) });
  return (
    <>
      <div class="form">
        <Input label="Name" value={draft.name} set={put("name")} wrong={wrong("name")} required />
        <Input label="Project" value={draft.project} set={put("project")} wrong={wrong("project")} hint="Budgets can be of a project" />
        <Input label="Tags" value={draft.tags} set={put("tags")} wrong={wrong("tags")} />
        <Choice label="Expires" value={draft.expires} set={put("expires")} of={[["", "as it is, at first never"], ["24h", "in a day"], ["30d", "in 30 days"], ["90d", "in 90 days"], ["365d", "in a year"]]} />
      </div>
      <fieldset class="buttons" style={{ border: 0, padding: 0, margin: 0 }}>
        <legend class="quiet">Good for</legend>
        {SCOPES.map((name) => <Check key={name} label={name} value={draft.scopes.includes(name)} set={scope(name)} />)}
      </fieldset>
      <div class="form">
        <Input label="Models" value={draft.models} set={put("models")} wrong={wrong("models")} hint="Patterns; * is all, empty is none" />
        <Input label="Providers" value={draft.providers} set={put("providers")} wrong={wrong("providers")} hint="Patterns" />
        <Input label="Hosts" value={draft.hosts} set={put("hosts")} wrong={wrong("hosts")} hint="Patterns" />
        <Input label="Calls a minute" type="number" value={draft.rpm} set={put("rpm")} wrong={wrong("limits")} placeholder="no limit" />
        <Input label="Tokens a minute" type="number" value={draft.tpm} set={put("tpm")} placeholder="no limit" />
        <Input label="At a time" type="number" value={draft.concurrency} set={put("concurrency")} placeholder="no limit" />
        <Input label="Longest answer, tokens" type="number" value={draft.output} set={put("output")} placeholder="no limit" />
      </div>
    </>
  );
}

function Make({ close, then }: { close: () => void; then: (made: Schemas["ApiKeyMade"]) => void }) {
  const [draft, setDraft] = useState(drafted());
  const save = async () => then(await done(api.POST("/admin/v1/apikeys", { body: bodied(draft) })));
  return <Asking title="Make a key" close={close} save={save} verb="Make">{(wrong) => <Fields draft={draft} set={setDraft} wrong={wrong} />}</Asking>;
}

function Made({ of, close }: { of: Schemas["ApiKeyMade"]; close: () => void }) {
  return (
    <Dialog title={`The key of ${of.name}`} close={close}>
      <p class="note warn">{of.warning}</p>
      <Copy text={of.key} label="Copy the key" />
      <Field label="In a program that speaks to TokenHub itself">{() => <Copy text={`OPENAI_BASE_URL=${location.origin}/v1\nOPENAI_API_KEY=${of.key}`} />}</Field>
      <div class="buttons"><Button kind="main" act={close}>I have it</Button></div>
    </Dialog>
  );
}

function Opened({ of, close, again, show }: { of: Key; close: () => void; again: () => void; show: (made: Schemas["ApiKeyMade"]) => void }) {
  const [draft, setDraft] = useState(drafted(of));
  const [editing, setEditing] = useState(false);
  const [leaving, setLeaving] = useState(false);
  const path = { params: { path: { id: of.id } } };
  const save = async () => {
    await done(api.PATCH("/admin/v1/apikeys/{id}", { ...path, body: bodied(draft) }));
    again();
  };
  const rotate = async () => {
    show(await done(api.POST("/admin/v1/apikeys/{id}/rotate", { ...path, body: {} })));
    again();
  };
  const enable = async () => {
    await done(api.PATCH("/admin/v1/apikeys/{id}", { ...path, body: { enabled: !of.enabled } }));
    again();
  };
  const revoke = async () => {
    await done(api.DELETE("/admin/v1/apikeys/{id}", path));
    again();
    close();
  };
  return (
    <Dialog kind="drawer" title={`Key ${of.name}`} close={close}>
      <div class="stack">
        {may("operator") && (
          <div class="buttons">
            <Button act={() => setEditing(true)}>Change</Button>
            <Button act={rotate}>Rotate</Button>
            <Button act={enable}>{of.enabled ? "Switch off" : "Switch on"}</Button>
            <Button kind="danger" act={() => setLeaving(true)}>Revoke</Button>
          </div>
        )}
        <Facts of={[
          ["Id", <code>{of.id}</code>],
          ["State", <State of={of} />],
          ["Good for", list(of.scopes)],
          ["Models", list(of.models)],
          ["Providers", list(of.providers)],
          ["Hosts", list(of.hosts)],
          ["Project", of.project],
          ["Tags", of.tags.join(", ")],
          ["Limits", Object.entries(of.limits).filter(([, value]) => value != null).map(([name, value]) => `${value} ${name.replaceAll("_", " ")}`).join(", ") || "none"],
          ["Made", <Time at={of.created_at} />],
          ["Last used", <Time at={of.last_used_at} />],
          ["Expires", <Time at={of.expires_at} />],
          ["Older secrets", of.previous.map((one) => <span key={one.prefix}><code>{one.prefix}…</code> until <Time at={one.expires_at} /> </span>)],
        ]} />
      </div>
      {editing && <Asking title={`Change ${of.name}`} close={() => setEditing(false)} save={save}>{(wrong) => <Fields draft={draft} set={setDraft} wrong={wrong} />}</Asking>}
      {leaving && <Asking title={`Revoke ${of.name}?`} verb="Revoke" danger close={() => setLeaving(false)} save={revoke}><p>Nobody is let in with it any more, from this second on.</p></Asking>}
    </Dialog>
  );
}
