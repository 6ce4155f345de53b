// Budgets: how much is spent, held and left, and where it will end.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Bar, Button, Empty, Head, Sheet, Shown, Time } from "../parts/basics";
import { Asking, Check, Choice, Input, names } from "../parts/forms";
import { count, money, share } from "../parts/format";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

type Budget = Schemas["BudgetShown"];
const MICROS = 1e6;

const sum = (unit: string, amount: number | null | undefined): string =>
  amount == null ? "–" : unit === "usd" ? money(amount / MICROS) : count(amount);

export function Budgets() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/budgets")), [], { follow: true, every: 5000 });
  const [editing, setEditing] = useState<Budget | "new">();
  const add = may("operator") && <Button kind="main" act={() => setEditing("new")}>Make a budget</Button>;
  return (
    <>
      <Head title="Budgets" more={add}>Money, tokens or calls, for all, a project or a key. Held before a call goes out, so that calls at the same time can not spend it twice.</Head>
      <Shown of={loaded}>
        {({ items }) => items.length === 0 ? (
          <Sheet><Empty title="No budget yet"><p>With one, a loop that calls a model all night ends when the money does.</p>{add}</Empty></Sheet>
        ) : (
          <div class="grid">{items.map((one) => <Card key={one.id} of={one} edit={() => setEditing(one)} again={loaded.again} />)}</div>
        )}
      </Shown>
      {editing && <Edit of={editing === "new" ? undefined : editing} close={() => setEditing(undefined)} then={loaded.again} />}
    </>
  );
}

function Card({ of, edit, again }: { of: Budget; edit: () => void; again: () => void }) {
  const part = of.limit ? of.spent / of.limit : 1;
  const passed = Math.max(0, ...of.thresholds.filter((one) => part * 100 >= one));
  const tone = part >= 1 ? "bad" : passed ? "warn" : "";
  const [leaving, setLeaving] = useState(false);
  const path = { params: { path: { id: of.id } } };
  const paid = async () => {
    await done(api.POST("/admin/v1/budgets/{id}/paid", path));
    again();
  };
  const remove = async () => {
    await done(api.DELETE("/admin/v1/budgets/{id}", path));
    again();
  };
  return (
    <Sheet title={of.owner} more={<><Badge>{of.period === "total" ? "in all" : `a ${of.period}`}</Badge>{!of.hard && <Badge tone="info">only warns</Badge>}{part >= 1 && of.hard && <Badge tone="bad">stopped</Badge>}</>}>
      <div class="stack">
        <div>
          <strong style={{ fontSize: "1.4rem" }}>{sum(of.unit, of.spent)}</strong>{" "}
          <span class="quiet">of {sum(of.unit, of.limit)} {of.unit !== "usd" && of.unit} ({share(part)})</span>
        </div>
        <Bar part={part} held={of.limit ? of.reserved / of.limit : 0} tone={tone} />
        <p class="quiet">
          {of.reserved > 0 && `${sum(of.unit, of.reserved)} held by calls in flight. `}
          {sum(of.unit, of.left)} left. {of.resets_at && <>Begins anew <Time at={of.resets_at} /> ({of.zone}).</>}
        </p>
        {of.forecast?.at_end != null && (
          <p class={of.forecast.met_at ? "warn" : "quiet"}>
            At this rate {sum(of.unit, of.forecast.at_end)} at its end{of.forecast.met_at && <>, and used up <Time at={of.forecast.met_at} /></>}.
          </p>
        )}
        {may("operator") && (
          <div class="buttons">
            <Button small act={edit}>Change</Button>
            <Button small act={paid}>Begin anew</Button>
            <Button small kind="danger" act={() => setLeaving(true)}>Remove</Button>
          </div>
        )}
      </div>
      {leaving && <Asking title="Remove this budget?" verb="Remove" danger close={() => setLeaving(false)} save={remove}><p>{of.owner} is not bounded by it any more, and what was counted is forgotten.</p></Asking>}
    </Sheet>
  );
}

function Edit({ of, close, then }: { of: Budget | undefined; close: () => void; then: () => void }) {
  const [owner, setOwner] = useState(of?.owner ?? "all");
  const [unit, setUnit] = useState<string>(of?.unit ?? "usd");
  const [period, setPeriod] = useState<string>(of?.period ?? "month");
  const [limit, setLimit] = useState(of ? String(of.unit === "usd" ? of.limit / MICROS : of.limit) : "");
  const [thresholds, setThresholds] = useState(of?.thresholds.join(", ") ?? "50, 80, 95");
  const [hard, setHard] = useState(of?.hard ?? true);
  const save = async () => {
    const amount = Math.round(Number(limit) * (unit === "usd" ? MICROS : 1));
    const common = { limit: amount, thresholds: names(thresholds).map(Number), hard };
    if (of) await done(api.PATCH("/admin/v1/budgets/{id}", { params: { path: { id: of.id } }, body: common }));
    else await done(api.POST("/admin/v1/budgets", { body: { ...common, owner: owner.trim(), unit: unit as Schemas["Unit"], period: period as Schemas["Period"] } }));
    then();
  };
  return (
    <Asking title={of ? `Change the budget of ${of.owner}` : "Make a budget"} close={close} save={save}>
      {(wrong) => (
        <>
          {!of && (
            <div class="form">
              <Input label="Of" value={owner} set={setOwner} wrong={wrong("owner")} hint="all, project:NAME or key:ID" required />
              <Choice label="In" value={unit} set={setUnit} of={[["usd", "dollars"], "tokens", "requests"]} />
              <Choice label="For each" value={period} set={setPeriod} of={["day", "week", "month", ["total", "all time"]]} />
            </div>
          )}
          <Input label={unit === "usd" ? "Limit, dollars" : `Limit, ${unit}`} type="number" step="any" value={limit} set={setLimit} wrong={wrong("limit")} required />
          <Input label="Warn at, percent" value={thresholds} set={setThresholds} wrong={wrong("thresholds")} />
          <Check label="Stop when it is used up (otherwise only warn)" value={hard} set={setHard} />
        </>
      )}
    </Asking>
  );
}
