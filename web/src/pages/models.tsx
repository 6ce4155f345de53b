// Models: prices, limits, weights; many at once.

import { useMemo, useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Empty, Head, Sheet, Shown, toast } from "../parts/basics";
import { Asking, Check, Dialog, Input, names, numeric } from "../parts/forms";
import { count, money } from "../parts/format";
import { Table, type Column } from "../parts/table";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

type Model = Schemas["ModelShown"];
const id = (one: Model) => `${one.id} @ ${one.provider_id}`;
const price = (value: number | null) => (value == null ? "unknown" : money(value * 1000));

export function Models() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/models")), [], { follow: true });
  const [text, setText] = useState("");
  const [picked, setPicked] = useState<ReadonlySet<string>>(new Set());
  const [open, setOpen] = useState<Model>();
  const [asking, setAsking] = useState<"add" | "many" | "prices">();
  const pick = (one: Model) => (event: Event) => {
    event.stopPropagation();
    setPicked((was) => {
      const next = new Set(was);
      if (!next.delete(id(one))) next.add(id(one));
      return next;
    });
  };
  const columns = useMemo((): readonly Column<Model>[] => [
    { name: "pick", title: "", cell: (one) => <input type="checkbox" aria-label={`Pick ${one.id}`} checked={picked.has(id(one))} onClick={pick(one)} /> },
    { name: "id", title: "Model", cell: (one) => <strong>{one.id}</strong>, by: (one) => one.id },
    { name: "provider", title: "Provider", cell: (one) => one.provider_id, by: (one) => one.provider_id },
    { name: "state", title: "State", cell: (one) => <Badge tone={one.enabled ? "good" : ""}>{one.enabled ? "on" : "off"}</Badge>, by: (one) => String(one.enabled) },
    { name: "weight", title: "Weight", num: true, cell: (one) => one.weight, by: (one) => one.weight, hint: "How much its quality is trusted, 0 to 10" },
    { name: "context", title: "Context", num: true, cell: (one) => count(one.max_context_tokens || null), by: (one) => one.max_context_tokens },
    { name: "in", title: "In, per million", num: true, cell: (one) => price(one.input_per_1k), by: (one) => one.input_per_1k ?? -1 },
    { name: "out", title: "Out, per million", num: true, cell: (one) => price(one.output_per_1k), by: (one) => one.output_per_1k ?? -1 },
    { name: "source", title: "Price from", cell: (one) => <span class="quiet">{one.pricing_source}</span>, by: (one) => one.pricing_source },
  ], [picked]);
  const all = loaded.value?.items ?? [];
  const shown = useMemo(() => all.filter((one) => `${id(one)} ${one.upstream}`.toLowerCase().includes(text.toLowerCase())), [all, text]);
  return (
    <>
      <Head title="Models" more={may("operator") && (
        <>
          <Button act={() => setAsking("prices")}>Compare prices</Button>
          <Button kind="main" act={() => setAsking("add")}>Register a model</Button>
        </>
      )}>
        What can be asked for, what it costs and how far it is trusted.
      </Head>
      <div class="filters">
        <input class="search" type="search" aria-label="Filter" placeholder="Model or provider" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        {may("operator") && <Button act={() => setPicked(new Set(shown.map(id)))} disabled={!shown.length}>Pick all {shown.length}</Button>}
        {picked.size > 0 && (
          <>
            <Button kind="main" act={() => setAsking("many")}>Change {picked.size}</Button>
            <Button kind="plain" act={() => setPicked(new Set())}>Pick none</Button>
          </>
        )}
      </div>
      <Sheet flush>
        <Shown of={loaded}>
          {() =>
            shown.length ? <Table label="Models" tall rows={shown} columns={columns} id={id} open={setOpen} /> : (
              <Empty title={all.length ? "No model matches" : "No model yet"}>
                {!all.length && <p>Register a provider: the models of the price list come with it.</p>}
              </Empty>
            )
          }
        </Shown>
      </Sheet>
      {asking === "add" && <Add close={() => setAsking(undefined)} then={loaded.again} />}
      {asking === "many" && <Many of={all.filter((one) => picked.has(id(one)))} close={() => setAsking(undefined)} then={loaded.again} />}
      {asking === "prices" && <PricesDialog close={() => setAsking(undefined)} then={loaded.again} />}
      {open && <Edit of={open} close={() => setOpen(undefined)} then={loaded.again} />}
    </>
  );
}

const perThousand = (text: string): number | undefined => {
  const value = numeric(text);
  return value === undefined ? undefined : value / 1000;
};
const perMillion = (value: number | null): string => (value == null ? "" : String(Number((value * 1000).toPrecision(12))));

function Edit({ of, close, then }: { of: Model; close: () => void; then: () => void }) {
  const [weight, setWeight] = useState(String(of.weight));
  const [context, setContext] = useState(String(of.max_context_tokens || ""));
  const [most, setMost] = useState(String(of.max_output_tokens || ""));
  const [input, setInput] = useState(perMillion(of.input_per_1k));
  const [output, setOutput] = useState(perMillion(of.output_per_1k));
  const [quirks, setQuirks] = useState(of.quirks.join(", "));
  const [enabled, setEnabled] = useState(of.enabled);
  const where = { params: { path: { id: of.id }, query: { provider: of.provider_id } } };
  const save = async () => {
    const body: Schemas["ModelPatch"] = { enabled };
    const put = <Name extends keyof Schemas["ModelPatch"]>(name: Name, value: Schemas["ModelPatch"][Name] | undefined, was: unknown) => {
      if (value !== undefined && JSON.stringify(value) !== JSON.stringify(was)) body[name] = value;
    };
    put("weight", numeric(weight), of.weight);
    put("max_context_tokens", numeric(context), of.max_context_tokens);
    put("max_output_tokens", numeric(most), of.max_output_tokens);
    put("input_per_1k", perThousand(input), of.input_per_1k);
    put("output_per_1k", perThousand(output), of.output_per_1k);
    put("quirks", names(quirks), of.quirks);
    await done(api.PATCH("/admin/v1/models/{id}", { ...where, body }));
    then();
  };
  const remove = async () => {
    await done(api.DELETE("/admin/v1/models/{id}", where));
    then();
    close();
  };
  return (
    <Asking title={`${of.id} @ ${of.provider_id}`} close={close} save={save}>
      {(wrong) => (
        <>
          <div class="form">
            <Input label="Weight" type="number" min="0" max="10" value={weight} set={setWeight} wrong={wrong("weight")} hint="0 to 10" />
            <Input label="Context, tokens" type="number" value={context} set={setContext} wrong={wrong("max_context_tokens")} />
            <Input label="Longest answer, tokens" type="number" value={most} set={setMost} wrong={wrong("max_output_tokens")} />
            <Input label="In, dollars per million" type="number" step="any" value={input} set={setInput} wrong={wrong("input_per_1k")} />
            <Input label="Out, dollars per million" type="number" step="any" value={output} set={setOutput} wrong={wrong("output_per_1k")} />
            <Input label="Quirks" value={quirks} set={setQuirks} wrong={wrong("quirks")} hint="Repairs for models with habits" />
          </div>
          <Check label="Can be chosen" value={enabled} set={setEnabled} />
          <p class="quiet">Price from {of.pricing_source}. {of.lacks.length > 0 && `Lacks ${of.lacks.join(", ")}.`}</p>
          {may("operator") && <div><Button kind="danger" small act={remove}>Remove this model</Button></div>}
        </>
      )}
    </Asking>
  );
}

function Add({ close, then }: { close: () => void; then: () => void }) {
  const [name, setName] = useState("");
  const [provider, setProvider] = useState("");
  const [upstream, setUpstream] = useState("");
  const save = async () => {
    const body: Schemas["ModelBody"] = { id: name.trim(), provider_id: provider.trim() };
    if (upstream.trim()) body.upstream = upstream.trim();
    await done(api.POST("/admin/v1/models", { body }));
    then();
  };
  return (
    <Asking title="Register a model" close={close} save={save} verb="Register">
      {(wrong) => (
        <>
          <Input label="Name" value={name} set={setName} wrong={wrong("id")} hint="As callers ask for it." required />
          <Input label="Provider" value={provider} set={setProvider} wrong={wrong("provider_id")} required />
          <Input label="The provider's own name for it" value={upstream} set={setUpstream} wrong={wrong("upstream")} hint="Empty where it is the same. Price and limits come from the price list where it knows the model." />
        </>
      )}
    </Asking>
  );
}

function Many({ of, close, then }: { of: readonly Model[]; close: () => void; then: () => void }) {
  const [weight, setWeight] = useState("");
  const [enabled, setEnabled] = useState("");
  const save = async () => {
    const body: Schemas["ModelPatch"] = {};
    const value = numeric(weight);
    if (value !== undefined) body.weight = value;
    if (enabled) body.enabled = enabled === "on";
    for (const one of of) {
      await done(api.PATCH("/admin/v1/models/{id}", { params: { path: { id: one.id }, query: { provider: one.provider_id } }, body }));
    }
    toast(`${of.length} models were changed.`);
    then();
  };
  return (
    <Asking title={`Change ${of.length} models`} close={close} save={save}>
      <Input label="Weight" type="number" min="0" max="10" value={weight} set={setWeight} hint="Empty: as it is" />
      <label class="field">
        State
        <select value={enabled} onChange={(event) => setEnabled(event.currentTarget.value)}>
          <option value="">as it is</option>
          <option value="on">on</option>
          <option value="off">off</option>
        </select>
      </label>
    </Asking>
  );
}

function PricesDialog({ close, then }: { close: () => void; then: () => void }) {
  const loaded = useLoaded(() => done(api.POST("/admin/v1/prices/refresh", { params: { query: {} }, body: undefined })), []);
  const apply = async () => {
    const told = await done(api.POST("/admin/v1/prices/refresh", { params: { query: { apply: "true" } }, body: undefined }));
    toast(`${told.changes.filter((one) => one.applied).length} prices were taken over.`);
    then();
    close();
  };
  return (
    <Dialog kind="drawer" title="Prices" close={close}>
      <Shown of={loaded}>
        {(told) => (
          <div class="stack">
            <p>Against {told.source}: {told.same} the same, {told.manual} set by hand and left alone, {told.unlisted} not in the list.</p>
            {told.changes.length === 0 ? <p class="note good">Every price is the list's.</p> : (
              <>
                <table aria-label="Price changes">
                  <thead><tr><th scope="col">Model</th><th scope="col" class="num">In, was</th><th scope="col" class="num">In, now</th><th scope="col" class="num">Out, was</th><th scope="col" class="num">Out, now</th></tr></thead>
                  <tbody>
                    {told.changes.map((one) => (
                      <tr key={`${one.model_id} ${one.provider_id}`}>
                        <td>{one.model_id} <span class="quiet">@ {one.provider_id}</span></td>
                        <td class="num">{price(one.was.input_per_1k)}</td><td class="num">{price(one.now.input_per_1k)}</td>
                        <td class="num">{price(one.was.output_per_1k)}</td><td class="num">{price(one.now.output_per_1k)}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
                <div class="buttons"><Button kind="main" act={apply}>Take these prices</Button></div>
              </>
            )}
          </div>
        )}
      </Shown>
    </Dialog>
  );
}
