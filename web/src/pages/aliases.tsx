// Aliases: a name that stands for models; an experiment tells which of them does better.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Empty, Head, Sheet, Shown } from "../parts/basics";
import { Asking, Check, Choice, Dialog, Field } from "../parts/forms";
import { count, millis, money, share } from "../parts/format";
import { Table, type Column } from "../parts/table";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";
import { Input } from "../parts/forms";

type Alias = Schemas["AliasShown"];
type Figure = Schemas["Figure"] | null;

const COLUMNS: readonly Column<Alias>[] = [
  { name: "name", title: "Alias", cell: (one) => <strong>{one.name}</strong>, by: (one) => one.name },
  { name: "state", title: "State", cell: (one) => one.shadowed ? <Badge tone="warn">hidden by a model</Badge> : <Badge tone={one.enabled ? "good" : ""}>{one.enabled ? "on" : "off"}</Badge> },
  { name: "strategy", title: "Strategy", cell: (one) => one.strategy.replace("_", " "), by: (one) => one.strategy },
  { name: "sticky", title: "Kept together by", cell: (one) => one.sticky_by },
  { name: "variants", title: "Variants", cell: (one) => <span class="buttons">{one.variants.map((v) => <Badge key={v.model_id} tone={v.missing ? "bad" : ""}>{v.model_id} {one.strategy === "weighted" && `· ${v.weight}`}</Badge>)}</span> },
];

export function Aliases() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/aliases")), [], { follow: true });
  const [editing, setEditing] = useState<Alias | "new">();
  const [open, setOpen] = useState<Alias>();
  const add = may("operator") && <Button kind="main" act={() => setEditing("new")}>Make an alias</Button>;
  return (
    <>
      <Head title="Aliases" more={add}>A name for callers that stands for one model, several that share the calls, or an experiment.</Head>
      <Sheet flush>
        <Shown of={loaded}>
          {({ items }) => items.length ? <Table label="Aliases" rows={items} columns={COLUMNS} id={(one) => one.name} open={setOpen} /> : (
            <Empty title="No alias yet"><p>Programs that ask for <code>smart</code> need no change when you move it to another model.</p>{add}</Empty>
          )}
        </Shown>
      </Sheet>
      {editing && <Edit of={editing === "new" ? undefined : editing} close={() => setEditing(undefined)} then={loaded.again} />}
      {open && !editing && <Report of={open} close={() => setOpen(undefined)} edit={() => setEditing(open)} then={loaded.again} />}
    </>
  );
}

function parsed(text: string): Schemas["Variant"][] {
  return text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const [model_id = "", weight] = line.split(/\s+/);
    return weight === undefined ? { model_id } : { model_id, weight: Number(weight) };
  });
}

function Edit({ of, close, then }: { of: Alias | undefined; close: () => void; then: () => void }) {
  const [name, setName] = useState(of?.name ?? "");
  const [variants, setVariants] = useState(of?.variants.map((v) => `${v.model_id} ${v.weight}`).join("\n") ?? "");
  const [strategy, setStrategy] = useState<string>(of?.strategy ?? "weighted");
  const [sticky, setSticky] = useState<string>(of?.sticky_by ?? "conversation");
  const [enabled, setEnabled] = useState(of?.enabled ?? true);
  const save = async () => {
    await done(api.POST("/admin/v1/aliases", { body: { name: name.trim(), variants: parsed(variants), strategy: strategy as Schemas["Strategy"], sticky_by: sticky as Schemas["Sticky"], enabled } }));
    then();
  };
  return (
    <Asking title={of ? `Change ${of.name}` : "Make an alias"} close={close} save={save}>
      {(wrong) => (
        <>
          <Input label="Name" value={name} set={setName} wrong={wrong("name")} disabled={of !== undefined} required />
          <Field label="Variants" hint="A model a line, with its weight behind it" wrong={wrong("variants")}>
            {(id, about) => <textarea id={id} aria-describedby={about} value={variants} onInput={(event) => setVariants(event.currentTarget.value)} placeholder={"gpt-4o 90\nclaude-sonnet-4 10"} />}
          </Field>
          <Choice label="Strategy" value={strategy} set={setStrategy} of={[["weighted", "by weight (an experiment)"], ["round_robin", "in turn"], ["pool", "the router chooses among them"]]} />
          <Choice label="Kept together by" value={sticky} set={setSticky} of={["conversation", "key", "request"]} />
          <Check label="On" value={enabled} set={setEnabled} />
        </>
      )}
    </Asking>
  );
}

function Report({ of, close, edit, then }: { of: Alias; close: () => void; edit: () => void; then: () => void }) {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/aliases/{name}/report", { params: { path: { name: of.name } } })), [of.name]);
  const remove = async () => {
    await done(api.DELETE("/admin/v1/aliases/{name}", { params: { path: { name: of.name } } }));
    then();
    close();
  };
  return (
    <Dialog kind="drawer" title={`Alias ${of.name}`} close={close}>
      <div class="stack">
        {may("operator") && <div class="buttons"><Button act={edit}>Change</Button><Button kind="danger" act={remove}>Remove</Button></div>}
        <Shown of={loaded}>
          {(report) => report.requests === 0 ? <Empty title="Nobody has asked for it yet" /> : (
            <>
              <p class="quiet">{count(report.requests)} calls; ranges hold the truth in {share(report.confidence)} of such experiments.</p>
              <table aria-label="Variants">
                <thead><tr><th scope="col">Variant</th><th scope="col" class="num">Calls</th><th scope="col" class="num">Succeed</th><th scope="col" class="num">Cost a call</th><th scope="col" class="num">Takes</th></tr></thead>
                <tbody>
                  {report.variants.map((one) => (
                    <tr key={one.model_id}>
                      <td>{one.model_id}</td>
                      <td class="num">{count(one.requests)}</td>
                      <td class="num"><Range of={one.success_rate} as={share} /></td>
                      <td class="num"><Range of={one.cost_usd} as={money} /></td>
                      <td class="num"><Range of={one.latency_ms} as={millis} /></td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </>
          )}
        </Shown>
      </div>
    </Dialog>
  );
}

export function Range({ of, as }: { of: Figure; as: (value: number) => string }) {
  if (!of) return <span class="faint">–</span>;
  return (
    <>
      {as(of.value)}
      {of.low != null && of.high != null && <div class="faint">{as(of.low)} to {as(of.high)}</div>}
    </>
  );
}
