// One call, opened: what was asked, who could have served it and why this one did, what was tried, what it cost.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";
import { Badge, Button, Copy, Facts, Figures, Shown, Tabs, Time } from "./basics";
import { Outcome, served } from "./calls";
import { Dialog } from "./forms";
import { count, millis, money, nano, words } from "./format";
import { Candidates, Exclusions } from "./plan";

type Decision = Schemas["Decision"];
type Attempt = Schemas["AttemptShown"];
type Tab = "decision" | "attempts" | "details" | "text";

export function CallDrawer({ id, close }: { id: string; close: () => void }) {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/decisions/{id}", { params: { path: { id } } })), [id]);
  return (
    <Dialog kind="drawer" title={`Call ${id}`} close={close}>
      <Shown of={loaded}>{(decision) => <Call of={decision} />}</Shown>
    </Dialog>
  );
}

function Call({ of }: { of: Decision }) {
  const [tab, setTab] = useState<Tab>("decision");
  const tokens = of.usage.input_tokens + of.usage.output_tokens;
  return (
    <div class="stack">
      <div class="buttons">
        <Outcome of={{ outcome: of.outcome, status: of.status, error_class: of.error?.type }} />
        {of.simulated && <Badge tone="info">simulated</Badge>}
        {of.identical && <Badge>same bytes</Badge>}
        {of.asked.directive && <Badge>directive {of.asked.directive}</Badge>}
        {of.shadow && <Badge tone="info">shadow</Badge>}
        <span class="quiet"><Time at={of.at} /></span>
      </div>
      {of.error && <p class="note bad">{of.error.message}</p>}
      <Figures of={[
        ["Cost", money(of.cost_usd)],
        ["Total", millis(of.timings.total_ms)],
        ["First token", millis(of.timings.ttft_ms)],
        ["Tokens", count(tokens), of.usage.estimated ? "estimated" : undefined],
      ]} />
      <Tabs label="About the call" at={tab} go={setTab} of={[["decision", "Decision"], ["attempts", `Attempts (${of.attempts.length})`], ["details", "Details"], ["text", "Text"]]} />
      {tab === "decision" && <Why of={of} />}
      {tab === "decision" && of.composition && <Steps of={of.composition} />}
      {tab === "attempts" && <Attempts of={of} />}
      {tab === "details" && <Details of={of} />}
      {tab === "text" && <Text id={of.id} />}
    </div>
  );
}

function Why({ of }: { of: Decision }) {
  const policy = of.policy;
  return (
    <div class="stack">
      <Facts of={[
        ["Asked for", of.asked.model],
        ["Served by", of.served ? served(of.served.model, of.served.provider) : "nobody"],
        ["Why", of.served?.reason || of.reason],
        ["Losses", of.losses.length ? of.losses.join(", ") : "none"],
      ]} />
      {policy && (
        <>
          <h3>Policy</h3>
          <Facts of={Object.entries(policy.why).map(([name, source]) => [
            words(name),
            <>{said((policy as unknown as Record<string, unknown>)[name])} <span class="faint">from {source}</span></>,
          ])} />
        </>
      )}
      <h3>Candidates</h3>
      <Candidates of={of.candidates} weights={of.weights} />
      <Exclusions of={of.exclusions} />
    </div>
  );
}

function Steps({ of }: { of: Schemas["Composition"] }) {
  return (
    <>
      <h3>Steps of {of.mode}{of.decided && `, decided by ${of.decided}`}</h3>
      <table aria-label="Steps">
        <thead><tr><th scope="col">Step</th><th scope="col">Made by</th><th scope="col">Verdict</th><th scope="col" class="num">Cost</th></tr></thead>
        <tbody>
          {(of.steps ?? []).map((one) => (
            <tr key={one.name}>
              <td>{one.name}</td><td>{served(one.model, one.provider)}</td>
              <td>{one.cause ? <Badge tone="bad">{one.cause}</Badge> : one.verdict}</td><td class="num">{nano(one.cost_nanousd)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

const said = (value: unknown): string =>
  value == null ? "none" : typeof value === "object" ? JSON.stringify(value) : String(value);

function Attempts({ of }: { of: Decision }) {
  const end = Math.max(of.timings.total_ms ?? 0, ...of.attempts.map((one) => one.ended_ms ?? 0), 1);
  if (!of.attempts.length) return <p class="quiet">Nobody was asked.</p>;
  return (
    <ol class="stack">
      {of.attempts.map((one) => (
        <li key={one.n} class="sheet">
          <header>
            <h3>{one.n}. {served(one.model, one.provider)}</h3>
            {one.cause ? <Badge tone="bad">{one.cause}</Badge> : <Badge tone="good">answered</Badge>}
          </header>
          <div class="inner stack">
            <Span of={one} end={end} />
            <Facts of={[
              ["Took", `${millis((one.ended_ms ?? 0) - (one.started_ms ?? 0))}, first byte after ${millis(one.first_byte_ms == null ? null : one.first_byte_ms - (one.started_ms ?? 0))}`],
              ["Status", one.status || "no answer"],
              ["Cost", nano(one.cost_nanousd)],
              ["Tokens", `${count(one.input_tokens)} in, ${count(one.output_tokens)} out`],
              ...(one.change ? [["Changed", one.change] as const] : []),
              ...(one.message ? [["Said", one.message] as const] : []),
              ...(one.blame ? [["To blame", one.blame] as const] : []),
              ...(one.provider_request_id ? [["Provider's id", <code>{one.provider_request_id}</code>] as const] : []),
            ]} />
          </div>
        </li>
      ))}
    </ol>
  );
}

function Span({ of, end }: { of: Attempt; end: number }) {
  const from = ((of.started_ms ?? 0) / end) * 100;
  const wide = Math.max((((of.ended_ms ?? 0) - (of.started_ms ?? 0)) / end) * 100, 0.5);
  const label = `from ${millis(of.started_ms)} to ${millis(of.ended_ms)}`;
  return (
    <div class={`bar ${of.cause ? "bad" : ""}`} role="img" aria-label={label} title={label}>
      <i style={{ left: `${from}%`, width: `${wide}%` }} />
    </div>
  );
}

function Details({ of }: { of: Decision }) {
  const { asked, usage, timings } = of;
  return (
    <Facts of={[
      ["Id", <code>{of.id}</code>],
      ["Program", asked.program],
      ["Meant for", asked.origin_host || "TokenHub itself"],
      ["Path", <code>{asked.method} {asked.path}</code>],
      ["Dialect", asked.dialect],
      ["Lane", asked.lane],
      ["Alias", asked.alias ? `${asked.alias} (${asked.variant})` : ""],
      ["Status", of.status],
      ["Stopped", of.stop_reason],
      ["Tokens in", `${count(usage.input_tokens)} (${count(usage.cache_read_tokens)} from cache, ${count(usage.cache_write_tokens)} into it)`],
      ["Tokens out", `${count(usage.output_tokens)} (${count(usage.reasoning_tokens)} thought)`],
      ["Deciding", millis(timings.route_ms)],
      ["Fleet version", of.fleet_version],
      ["Seed", of.seed ? <code>{of.seed}</code> : ""],
    ]} />
  );
}

function Text({ id }: { id: string }) {
  const [asked, setAsked] = useState(false);
  if (!may("admin")) return <p class="quiet">Only an admin may read the text of calls.</p>;
  if (asked) return <Body id={id} />;
  return (
    <div class="stack">
      <p class="quiet">
        Text is kept only where that was asked for, and sealed. Who reads it stands in the audit log first.
      </p>
      <div class="buttons"><Button act={() => setAsked(true)}>Read it</Button></div>
    </div>
  );
}

function Body({ id }: { id: string }) {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/logs/{id}/body", { params: { path: { id } } })), [id]);
  return (
    <Shown of={loaded}>
      {(kept) => (
        <div class="stack">
          <p class="quiet">Kept {kept.mode}, until <Time at={kept.until} />.</p>
          <h3>Request</h3>
          <Copy text={kept.request.text} />
          <h3>Answer</h3>
          <Copy text={kept.answer.text} />
        </div>
      )}
    </Shown>
  );
}
