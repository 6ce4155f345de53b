// What holds for calls that wish for nothing.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Button, Head, Sheet, Shown, toast } from "../parts/basics";
import { Choice, Input, numeric } from "../parts/forms";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

type Routing = Schemas["RoutingShown"];
const AS_SET = ["", "as the settings say"] as const;

export function Policy() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/routing-config")), [], { follow: true });
  return (
    <>
      <Head title="Policy">Defaults of every call. A directive, a key or an alias can say otherwise for its own.</Head>
      <Shown of={loaded}>{(now) => <Form of={now} again={loaded.again} />}</Shown>
    </>
  );
}

function Form({ of, again }: { of: Routing; again: () => void }) {
  const start = () => ({
    mode: of.default_mode ?? "",
    budget: of.default_max_budget_usd == null ? "" : String(of.default_max_budget_usd),
    latency: of.default_max_latency_ms == null ? "" : String(of.default_max_latency_ms),
    malformed: of.on_malformed_directive ?? "",
    fallback: of.fallback == null ? "" : String(of.fallback),
    explore: of.explore ?? "",
    affinity: of.affinity ?? "",
  });
  // What somebody else changes meanwhile is shown as what holds now; it does not take away what was written here.
  const [draft, setDraft] = useState(start);
  const set = (name: keyof typeof draft) => (value: string) => setDraft((was) => ({ ...was, [name]: value }));
  const save = async () => {
    const body = {
      default_mode: draft.mode || null,
      default_max_budget_usd: numeric(draft.budget) ?? null,
      default_max_latency_ms: numeric(draft.latency) ?? null,
      on_malformed_directive: draft.malformed || null,
      fallback: draft.fallback === "" ? null : draft.fallback === "true",
      explore: draft.explore || null,
      affinity: draft.affinity || null,
    } as Schemas["RoutingBody"];
    await done(api.PUT("/admin/v1/routing-config", { body }));
    toast("The defaults are changed. Calls from now on follow them.");
    again();
  };
  const now = of.effective;
  return (
    <Sheet title="Defaults" more={may("operator") && <Button kind="main" act={save}>Save</Button>}>
      <div class="form">
        <Choice label="Mode" value={draft.mode} set={set("mode")} of={[AS_SET, "normal", "cheap", "high_confidence", "planning", "adversarial"]} hint={`now ${now.default_mode}: what weighs how much`} />
        <Input label="Most a call may cost, dollars" type="number" step="any" value={draft.budget} set={set("budget")} hint={`now ${now.default_max_budget_usd ?? "no limit"}`} />
        <Input label="Longest it may take, ms" type="number" value={draft.latency} set={set("latency")} hint={`now ${now.default_max_latency_ms ?? "no limit"}`} />
        <Choice label="Failover" value={draft.fallback} set={set("fallback")} of={[AS_SET, ["true", "to other models"], ["false", "to the same model only"]]} hint={`now ${now.fallback ? "to other models" : "to the same model only"}`} />
        <Choice label="Exploring" value={draft.explore} set={set("explore")} of={[AS_SET, ["off", "off: the best estimate"], ["thompson", "Thompson sampling"]]} hint={`now ${now.explore}`} />
        <Choice label="Conversations" value={draft.affinity} set={set("affinity")} of={[AS_SET, ["on", "stay where they are"], ["off", "each call by itself"]]} hint={`now ${now.affinity}`} />
        <Choice label="A malformed directive" value={draft.malformed} set={set("malformed")} of={[AS_SET, ["reject", "is refused"], ["ignore", "is ignored"], ["off", "directives are not read at all"]]} hint={`now ${now.on_malformed_directive}`} />
      </div>
    </Sheet>
  );
}
