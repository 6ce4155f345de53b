// Where would a call go? Up to three policies side by side; nobody is asked and nothing is billed.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Button, Head, Problem, Sheet } from "../parts/basics";
import { Choice, Input, numeric } from "../parts/forms";
import { money } from "../parts/format";
import { Candidates, Exclusions } from "../parts/plan";
import type { Refused } from "../api/client";

const MODES = ["", "normal", "cheap", "high_confidence", "planning", "adversarial"] as const;
interface Draft { mode: string; budget: string; latency: string; weight: string }
const FRESH: Draft = { mode: "", budget: "", latency: "", weight: "" };

export function Simulator() {
  const [model, setModel] = useState("auto");
  const [tokens, setTokens] = useState("1000");
  const [output, setOutput] = useState("");
  const [drafts, setDrafts] = useState<readonly Draft[]>([FRESH]);
  const [plans, setPlans] = useState<readonly Schemas["Simulation"][]>([]);
  const [error, setError] = useState<Refused>();
  const run = async () => {
    setError(undefined);
    const most = numeric(output);
    try {
      setPlans(await Promise.all(drafts.map((draft) => {
        const body: Schemas["SimulateBody"] = { model_hint: model.trim(), token_count: numeric(tokens) ?? 0 };
        if (most !== undefined) body.max_output_tokens = most;
        if (draft.mode) body.mode = draft.mode as Schemas["Mode"];
        const [budget, latency, weight] = [numeric(draft.budget), numeric(draft.latency), numeric(draft.weight)];
        if (budget !== undefined) body.max_budget_usd = budget;
        if (latency !== undefined) body.max_latency_ms = latency;
        if (weight !== undefined) body.min_weight = weight;
        return done(api.POST("/admin/v1/routing/simulate", { body }));
      })));
    } catch (refused) {
      setError(refused as Refused);
    }
  };
  const change = (index: number, name: keyof Draft) => (value: string) =>
    setDrafts((was) => was.map((draft, at) => (at === index ? { ...draft, [name]: value } : draft)));
  return (
    <>
      <Head title="Simulator">Where a call would go now, and why, under one policy or several side by side.</Head>
      <Sheet title="The call" more={<Button kind="main" act={run}>Decide</Button>}>
        <div class="form">
          <Input label="Model" value={model} set={setModel} hint="auto leaves the choice to the router" />
          <Input label="Prompt, tokens" type="number" value={tokens} set={setTokens} />
          <Input label="Longest answer, tokens" type="number" value={output} set={setOutput} />
        </div>
      </Sheet>
      {error && <Problem error={error} />}
      <div class="two">
        {drafts.map((draft, index) => (
          <Sheet key={index} title={`Policy ${index + 1}`} more={index > 0 && <Button small kind="plain" act={() => { setDrafts(drafts.filter((_, at) => at !== index)); setPlans([]); }}>Leave out</Button>}>
            <div class="stack">
              <div class="form">
                <Choice label="Mode" value={draft.mode} set={change(index, "mode")} of={MODES.map((mode) => [mode, mode || "default"] as const)} />
                <Input label="Most it may cost, dollars" type="number" step="any" value={draft.budget} set={change(index, "budget")} />
                <Input label="Longest, ms" type="number" value={draft.latency} set={change(index, "latency")} />
                <Input label="Least weight" type="number" value={draft.weight} set={change(index, "weight")} />
              </div>
              {plans[index] && <Outcome of={plans[index]} />}
            </div>
          </Sheet>
        ))}
      </div>
      {drafts.length < 3 && <div><Button act={() => setDrafts([...drafts, FRESH])}>Compare with another policy</Button></div>}
    </>
  );
}

function Outcome({ of }: { of: Schemas["Simulation"] }) {
  return (
    <>
      {of.error && <p class="note bad">{of.error.status}: {of.error.message}</p>}
      {of.decision && (
        <p class="note good">
          <strong>{of.decision.model_id}</strong> @ {of.decision.provider_id}, about {money(of.decision.estimated_cost_usd)} ({of.decision.reason})
        </p>
      )}
      <Candidates of={of.candidates} weights={of.weights} />
      <Exclusions of={of.exclusions} />
    </>
  );
}
