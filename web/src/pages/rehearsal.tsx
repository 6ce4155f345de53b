// What the logged traffic would have come to under another policy.

import { useState } from "preact/hooks";
import { api, done, type Refused, type Schemas } from "../api/client";
import { Button, Figures, Head, Problem, Sheet } from "../parts/basics";
import { Choice, Input, numeric } from "../parts/forms";
import { count, millis, money, share } from "../parts/format";
import { Range } from "./aliases";

type Rehearsal = Schemas["RehearsalShown"];
const DAY = 86_400;

export function Rehearsal() {
  const [mode, setMode] = useState("cheap");
  const [explore, setExplore] = useState("");
  const [weight, setWeight] = useState("");
  const [days, setDays] = useState("1");
  const [program, setProgram] = useState("");
  const [told, setTold] = useState<Rehearsal>();
  const [error, setError] = useState<Refused>();
  const run = async () => {
    setError(undefined);
    const policy: Schemas["PolicyBody"] = {};
    if (mode) policy.mode = mode as Schemas["Mode"];
    const least = numeric(weight);
    if (least !== undefined) policy.min_weight = least;
    const body: Schemas["RehearseBody"] = { policy, since: Date.now() / 1000 - Number(days) * DAY };
    if (explore) body.explore = explore as "off" | "thompson";
    if (program.trim()) body.program = program.trim();
    try {
      setTold((await done(api.POST("/admin/v1/rehearse", { body }))) as Rehearsal);
    } catch (refused) {
      setError(refused as Refused);
    }
  };
  return (
    <>
      <Head title="Rehearsal">Every logged call is decided again under another policy. Nobody is asked; the estimates say how far they can be trusted.</Head>
      <Sheet title="The other policy" more={<Button kind="main" act={run}>Rehearse</Button>}>
        <div class="form">
          <Choice label="Mode" value={mode} set={setMode} of={["normal", "cheap", "high_confidence", "planning", "adversarial"]} />
          <Choice label="Exploring" value={explore} set={setExplore} of={[["", "as now"], "off", "thompson"]} />
          <Input label="Least weight" type="number" value={weight} set={setWeight} />
          <Choice label="Calls of" value={days} set={setDays} of={[["0.0416667", "the last hour"], ["1", "the last day"], ["7", "the last week"], ["30", "the last month"]]} />
          <Input label="Program" value={program} set={setProgram} placeholder="all" />
        </div>
      </Sheet>
      {error && <Problem error={error} />}
      {told && <Outcome of={told} />}
    </>
  );
}

function Outcome({ of }: { of: Rehearsal }) {
  return (
    <>
      {!of.complete && <p class="note warn">Not all calls of this time were thought through.</p>}
      {of.refusal && <p class="note warn">{of.refusal}</p>}
      <Figures of={[
        ["Calls", count(of.calls)],
        ["Go elsewhere", share(of.differently)],
        ["Cost", money(of.cost_usd?.rehearsed), of.cost_usd ? `instead of ${money(of.cost_usd.logged)}` : undefined],
        ["Takes", millis(of.latency_ms?.rehearsed), of.latency_ms ? `instead of ${millis(of.latency_ms.logged)}` : undefined],
        ["Refused", share(of.refused.rehearsed), `instead of ${share(of.refused.logged)}`],
      ]} />
      <div class="two">
        <Sheet title="Who would serve" flush>
          <table aria-label="Shares of models">
            <thead><tr><th scope="col">Model</th><th scope="col" class="num">Now</th><th scope="col" class="num">Then</th></tr></thead>
            <tbody>
              {of.mix.map((one) => (
                <tr key={`${one.model} ${one.provider}`}><td>{one.model} <span class="quiet">@ {one.provider}</span></td><td class="num">{share(one.logged)}</td><td class="num">{share(one.rehearsed)}</td></tr>
              ))}
            </tbody>
          </table>
        </Sheet>
        <Sheet title="What it would have come to" flush>
          <table aria-label="Estimates">
            <thead><tr><th scope="col">Of</th><th scope="col" class="num">Logged</th><th scope="col" class="num">Estimated</th><th scope="col" class="num">Difference</th></tr></thead>
            <tbody>
              {Object.entries(of.estimates).map(([name, one]) => {
                const as = name.includes("cost") ? money : name.includes("ms") || name.includes("latency") ? millis : share;
                return (
                  <tr key={name}><td>{name.replaceAll("_", " ")}</td><td class="num"><Range of={one.logged} as={as} /></td><td class="num"><Range of={one.dr} as={as} /></td><td class="num"><Range of={one.difference} as={as} /></td></tr>
                );
              })}
            </tbody>
          </table>
        </Sheet>
      </div>
      <Sheet title="What this rests on"><ul class="stack">{of.said.map((one) => <li key={one}>{one}</li>)}</ul></Sheet>
    </>
  );
}
