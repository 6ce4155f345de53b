// Providers and their credentials: register, test the waters, park and unpark.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Empty, Head, Sheet, Shown, Time, toast } from "../parts/basics";
import { Asking, Check, Choice, Dialog, Input } from "../parts/forms";
import { count } from "../parts/format";
import { Table, type Column } from "../parts/table";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

type Provider = Schemas["ProviderShown"];
type Credential = Schemas["CredentialShown"];
const TYPES = ["openai", "anthropic", "gemini", "azure", "openai_compatible", "ollama", "vllm", "simulator"] as const;
const STATES = { ready: "good", limited: "warn", parked: "warn", missing: "bad", disabled: "" } as const;

const COLUMNS: readonly Column<Provider>[] = [
  { name: "id", title: "Provider", cell: (one) => <strong>{one.id}</strong>, by: (one) => one.id },
  { name: "type", title: "Kind", cell: (one) => one.type ?? "", by: (one) => one.type ?? "" },
  { name: "url", title: "Address", cell: (one) => <code>{one.base_url}</code> },
  { name: "enabled", title: "State", cell: (one) => <State of={one} />, by: (one) => String(one.enabled) },
  { name: "credentials", title: "Credentials", cell: (one) => <Credentials of={one.credentials} /> },
  { name: "models", title: "Models", num: true, cell: (one) => count(one.models), by: (one) => one.models },
];

function State({ of }: { of: Provider }) {
  if (!of.enabled) return <Badge>off</Badge>;
  if (!of.credential) return <Badge tone="bad">no credential</Badge>;
  return <Badge tone="good">on</Badge>;
}

function Credentials({ of }: { of: readonly Credential[] }) {
  return <span class="buttons">{of.map((one) => <Badge key={one.name} tone={STATES[one.state]}>{one.name}: {one.state}</Badge>)}</span>;
}

export function Providers() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/providers")), [], { follow: true, every: 10_000 });
  const [adding, setAdding] = useState(false);
  const [open, setOpen] = useState<string>();
  const add = may("operator") && <Button kind="main" act={() => setAdding(true)}>Register a provider</Button>;
  return (
    <>
      <Head title="Providers" more={add}>Who can be asked, at which address, with which credentials.</Head>
      <Sheet flush>
        <Shown of={loaded}>
          {({ items }) =>
            items.length === 0 ? (
              <Empty title="No provider yet">
                <p>Calls of programs that bring their own key are served by the host they were meant for. With a provider registered here, TokenHub can choose.</p>
                {add}
              </Empty>
            ) : (
              <Table label="Providers" rows={items} columns={COLUMNS} id={(one) => one.id} open={(one) => setOpen(one.id)} />
            )
          }
        </Shown>
      </Sheet>
      {adding && <Register close={() => setAdding(false)} then={(id) => { loaded.again(); setOpen(id); }} />}
      {open && loaded.value && (
        <Opened id={open} of={loaded.value.items.find((one) => one.id === open)} again={loaded.again} close={() => setOpen(undefined)} />
      )}
    </>
  );
}

export function Register({ close, then }: { close: () => void; then: (id: string) => void }) {
  const [id, setId] = useState("");
  const [type, setType] = useState<string>("openai");
  const [url, setUrl] = useState("");
  const [key, setKey] = useState("");
  const [models, setModels] = useState(true);
  const save = async () => {
    const body: Schemas["ProviderBody"] = { id: id.trim(), type: type as Schemas["ProviderType"] };
    if (url.trim()) body.base_url = url.trim();
    if (key) body.api_key = key;
    await done(api.POST("/admin/v1/providers", { body }));
    toast(`${body.id} is registered.`);
    if (models) {
      const added = await done(api.POST("/admin/v1/providers/{id}/catalogue", { params: { path: { id: body.id } } }));
      toast(`${added.added} models of the price list were registered.`);
    }
    then(body.id);
  };
  return (
    <Asking title="Register a provider" close={close} save={save} verb="Register">
      {(wrong) => (
        <>
          <Input label="Name" value={id} set={setId} wrong={wrong("id")} hint="How it is called here and in directives." required />
          <Choice label="Kind" value={type} set={setType} of={TYPES} />
          <Input label="Address" value={url} set={setUrl} wrong={wrong("base_url")} placeholder="the vendor's own" hint="Empty for the vendor's own host." />
          <Input label="API key" type="password" value={key} set={setKey} wrong={wrong("api_key")} autocomplete="off" hint="Kept sealed in the vault, which has to be open; it is never shown again." />
          <Check label="Register the models that the price list knows" value={models} set={setModels} />
        </>
      )}
    </Asking>
  );
}

function Opened({ id, of, again, close }: { id: string; of: Provider | undefined; again: () => void; close: () => void }) {
  const [adding, setAdding] = useState(false);
  const [leaving, setLeaving] = useState(false);
  const parkings = useLoaded(() => done(api.GET("/admin/v1/providers/{id}/parkings", { params: { path: { id } } })), [id], { follow: true });
  if (!of) return null;
  const path = { params: { path: { id } } };
  const change = async (body: Schemas["ProviderPatch"]) => {
    await done(api.PATCH("/admin/v1/providers/{id}", { ...path, body }));
    again();
  };
  const catalogue = async () => {
    const { added } = await done(api.POST("/admin/v1/providers/{id}/catalogue", path));
    toast(`${added} models were registered.`);
    again();
  };
  return (
    <Dialog kind="drawer" title={`Provider ${id}`} close={close}>
      <div class="stack">
        {may("operator") && (
          <div class="buttons">
            <Button act={() => change({ enabled: !of.enabled })}>{of.enabled ? "Switch off" : "Switch on"}</Button>
            <Button act={catalogue}>Register models of the price list</Button>
            <Button kind="danger" act={() => setLeaving(true)}>Remove</Button>
          </div>
        )}
        <Sheet title="Credentials" flush more={may("operator") && <Button small act={() => setAdding(true)}>Add</Button>}>
          {of.credentials.map((one) => <CredentialLine key={one.name} provider={id} of={one} again={again} />)}
        </Sheet>
        <Sheet title="Parkings" flush>
          <Shown of={parkings}>
            {({ items }) =>
              items.length === 0 ? <p class="empty">No credential was ever parked.</p> : (
                <table aria-label="Parkings">
                  <tbody>
                    {items.map((one) => (
                      <tr key={`${one.at} ${one.credential} ${one.model}`}>
                        <td class="quiet"><Time at={one.at} /></td>
                        <td>{one.credential} {one.model && `for ${one.model}`}</td>
                        <td><Badge tone={one.action === "parked" ? "warn" : "good"}>{one.action}</Badge> {one.reason}</td>
                        <td class="quiet">{one.why}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              )
            }
          </Shown>
        </Sheet>
      </div>
      {adding && <NewCredential provider={id} close={() => setAdding(false)} then={again} />}
      {leaving && (
        <Asking title={`Remove ${id}?`} verb="Remove" danger close={() => setLeaving(false)} save={async () => { await done(api.DELETE("/admin/v1/providers/{id}", path)); again(); close(); }}>
          <p>Its credentials and its {of.models} models go with it. Calls in flight come to their end.</p>
        </Asking>
      )}
    </Dialog>
  );
}

function CredentialLine({ provider, of, again }: { provider: string; of: Credential; again: () => void }) {
  const path = { params: { path: { id: provider, name: of.name } } };
  const act = async (asking: Promise<unknown>) => {
    await asking;
    again();
  };
  return (
    <div class="inner stack" style={{ padding: "12px 14px", borderBottom: "1px solid var(--line)" }}>
      <div class="buttons">
        <strong>{of.name}</strong>
        <Badge tone={STATES[of.state]}>{of.state}</Badge>
        <span class="quiet">in {of.cred_store}</span>
        {of.parked_until && <span class="quiet">parked until <Time at={of.parked_until} /></span>}
        <span style={{ flex: 1 }} />
        {may("operator") && (
          <>
            {of.parkings.length > 0 && <Button small act={() => act(done(api.POST("/admin/v1/providers/{id}/credentials/{name}/unpark", path)))}>Unpark</Button>}
            <Button small act={() => act(done(api.PATCH("/admin/v1/providers/{id}/credentials/{name}", { ...path, body: { enabled: !of.enabled } })))}>{of.enabled ? "Switch off" : "Switch on"}</Button>
            <Button small kind="danger" act={() => act(done(api.DELETE("/admin/v1/providers/{id}/credentials/{name}", path)))}>Remove</Button>
          </>
        )}
      </div>
      {of.limits.length > 0 && (
        <p class="quiet">
          {of.limits.map((one) => `${one.metric} a ${one.window}${one.model && ` of ${one.model}`}: ${count(one.remaining)} of ${count(one.limit)} left`).join(" · ")}
        </p>
      )}
    </div>
  );
}

function NewCredential({ provider, close, then }: { provider: string; close: () => void; then: () => void }) {
  const [name, setName] = useState("");
  const [key, setKey] = useState("");
  const save = async () => {
    await done(api.POST("/admin/v1/providers/{id}/credentials", { params: { path: { id: provider } }, body: { name: name.trim(), api_key: key } }));
    then();
  };
  return (
    <Asking title="Add a credential" close={close} save={save} verb="Add">
      {(wrong) => (
        <>
          <Input label="Name" value={name} set={setName} wrong={wrong("name")} hint="A name that is there gets the new key." required />
          <Input label="API key" type="password" value={key} set={setKey} wrong={wrong("api_key")} autocomplete="off" required />
        </>
      )}
    </Asking>
  );
}
