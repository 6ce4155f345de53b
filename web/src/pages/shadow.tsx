// What is done with the calls to a host, and what those in shadow would have saved.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Empty, Figures, Head, Sheet, Shown, Time } from "../parts/basics";
import { Asking, Choice, Input } from "../parts/forms";
import { count, millis, money, share } from "../parts/format";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";
import { Range } from "./aliases";

const WORDS = {
  route: "is decided and served by us",
  shadow: "goes its own way; what we would have done is noted",
  observe: "goes its own way and is recorded",
  off: "is not looked at",
} as const;

export function Shadow() {
  const modes = useLoaded(() => done(api.GET("/admin/v1/modes")), [], { follow: true });
  const report = useLoaded(() => done(api.GET("/admin/v1/shadow/report")), [], { every: 30_000 });
  const [adding, setAdding] = useState(false);
  const remove = async (one: Schemas["ModeShown"]) => {
    await done(api.DELETE("/admin/v1/modes", { params: { query: { host: one.host, user: one.user, alias: one.alias } } }));
    modes.again();
  };
  return (
    <>
      <Head title="Shadow" more={may("operator") && <Button kind="main" act={() => setAdding(true)}>Set a mode</Button>}>
        See what TokenHub would save before it serves anybody.
      </Head>
      <Sheet title="Modes" flush>
        <Shown of={modes}>
          {({ items }) => items.length === 0 ? <p class="empty">Every call is routed.</p> : (
            <div class="table-frame" role="region" aria-label="Modes, scrolled" tabIndex={0}>
              <table aria-label="Modes">
                <thead><tr><th scope="col">Host</th><th scope="col">User</th><th scope="col">Alias</th><th scope="col">What happens</th><th scope="col" /></tr></thead>
                <tbody>
                  {items.map((one) => (
                    <tr key={`${one.host} ${one.user} ${one.alias}`}>
                      <td>{one.host || "all"}</td><td>{one.user || "all"}</td><td>{one.alias || "all"}</td>
                      <td><Badge tone={one.mode === "shadow" ? "info" : ""}>{one.mode}</Badge> <span class="quiet">{WORDS[one.mode]}</span></td>
                      <td class="num">{one.source === "stored" && may("operator") ? <Button small act={() => remove(one)}>Forget</Button> : <span class="quiet">{one.source}</span>}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
        </Shown>
      </Sheet>
      <Shown of={report}>{(told) => <Savings of={told} />}</Shown>
      {adding && <Add close={() => setAdding(false)} then={modes.again} />}
    </>
  );
}

function Savings({ of }: { of: Schemas["ShadowReport"] }) {
  if (!of.calls) return <Sheet title="Savings"><Empty title="No call in shadow yet"><p>Set a host to <code>shadow</code>: its calls go on as before, and here stands what another way would have cost.</p></Empty></Sheet>;
  return (
    <>
      <Figures of={[
        ["Calls in shadow", count(of.calls)],
        ["Paid", money(of.cost?.paid)],
        ["Would have paid", money(of.cost?.would)],
        ["Saved", money(of.cost?.saved), share(of.cost?.saved_share)],
        ["Saved a call", <Range of={of.cost?.saved_each ?? null} as={money} />],
        ["Sooner by", <Range of={of.latency.saved_each} as={millis} />],
      ]} />
      <div class="two">
        <Sheet title="Where calls would go" flush>
          <table aria-label="Moves">
            <thead><tr><th scope="col">Asked for</th><th scope="col">Would be served by</th><th scope="col" class="num">Calls</th><th scope="col" class="num">Paid</th><th scope="col" class="num">Would</th></tr></thead>
            <tbody>
              {of.models.map((one) => (
                <tr key={`${one.asked} ${one.host} ${one.model} ${one.provider}`}>
                  <td>{one.asked} <span class="quiet">at {one.host}</span></td><td>{one.model} <span class="quiet">@ {one.provider}</span></td>
                  <td class="num">{count(one.calls)}</td><td class="num">{money(one.paid)}</td><td class="num">{money(one.would)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Sheet>
        <Sheet title="What this rests on">
          <ul class="stack">
            {of.assumptions.map((one) => <li key={one}>{one}</li>)}
            {of.refusals.map((one) => <li key={one.message} class="warn">{one.calls} calls would have been refused: {one.message}</li>)}
          </ul>
          <p class="quiet">From <Time at={of.since} /> on; ranges hold the truth in {share(of.confidence)} of cases.</p>
        </Sheet>
      </div>
    </>
  );
}

function Add({ close, then }: { close: () => void; then: () => void }) {
  const [mode, setMode] = useState("shadow");
  const [host, setHost] = useState("");
  const [user, setUser] = useState("");
  const [alias, setAlias] = useState("");
  const save = async () => {
    const body = { mode: mode as Schemas["HostMode"], host: host.trim(), user: user.trim(), alias: alias.trim() };
    await done(api.PUT("/admin/v1/modes", { body }));
    then();
  };
  return (
    <Asking title="Set a mode" close={close} save={save}>
      {(wrong) => (
        <>
          <Choice label="A call" value={mode} set={setMode} of={Object.entries(WORDS).map(([name, told]) => [name, `${name}: ${told}`] as const)} />
          <Input label="To the host" value={host} set={setHost} wrong={wrong("host")} placeholder="all" hint="api.openai.com, or empty for all" />
          <Input label="Of the proxy user" value={user} set={setUser} wrong={wrong("user")} placeholder="all" />
          <Input label="For the alias" value={alias} set={setAlias} wrong={wrong("alias")} placeholder="all" />
        </>
      )}
    </Asking>
  );
}
