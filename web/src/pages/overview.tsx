// The first look: is it working, what does it cost, what needs somebody.

import { useMemo } from "preact/hooks";
import { Link } from "wouter-preact";
import { api, done, type Schemas } from "../api/client";
import { Badge, Empty, Figures, Head, Sheet, Shown, Time } from "../parts/basics";
import { Chart, type Curve } from "../parts/chart";
import { served } from "../parts/calls";
import { count, millis, money, NANO, share } from "../parts/format";
import { changes, others } from "../state/events";
import { useLoaded } from "../state/loaded";
import { quantile, recent, slotted, type Entry } from "../state/recent";

const HOUR = 3600;
const SLOTS = 60;
const MOST = 5000;

export function Overview() {
  const info = useLoaded(() => done(api.GET("/admin/v1/info")), [], { every: 15_000, follow: true });
  const log = useLoaded(async () => {
    const until = Date.now() / 1000;
    return { until, entries: await recent(MOST, until - HOUR) };
  }, [], { every: 15_000 });
  return (
    <>
      <Head title="Overview">The last hour, and what is running.</Head>
      <Shown of={info}>{(now) => <Attention info={now} />}</Shown>
      <Shown of={log}>
        {({ entries, until }) =>
          entries.length === 0 ? (
            <Sheet>
              <Empty title="No calls in the last hour">
                <p>Put a program behind TokenHub: nothing in it has to change.</p>
                <p><Link href="/ui/setup" class="button main">Set up a client</Link></p>
              </Empty>
            </Sheet>
          ) : (
            <Traffic entries={entries} until={until} />
          )
        }
      </Shown>
      <Events />
    </>
  );
}

function Attention({ info }: { info: Schemas["Info"] }) {
  const health = useLoaded(() => done(api.GET("/admin/v1/health")), [changes.value], { every: 15_000 });
  const ill = health.value?.providers.filter((one) => one.state !== "healthy") ?? [];
  const locked = info.vault === "locked";
  return (
    <>
      {info.simulated && (
        <p class="note">
          Answers are simulated: no provider is asked and nothing is billed. <Link href="/ui/providers">Register a provider</Link> and
          start without <code>--simulate</code> for real ones.
        </p>
      )}
      {locked && (
        <p class="note warn">
          The vault is locked: providers whose credential is in it are left out. <Link href="/ui/vault">Unlock it</Link>.
        </p>
      )}
      {ill.map((one) => (
        <p class="note bad" key={one.provider_id}>
          <strong>{one.provider_id}</strong> is {one.state.replace("_", " ")}: {one.last_error || "no word why"} (<Time at={one.last_error_at} />).
        </p>
      ))}
    </>
  );
}

function Traffic({ entries, until }: { entries: readonly Entry[]; until: number }) {
  const slots = useMemo(() => slotted(entries, until - HOUR, until, SLOTS), [entries, until]);
  const good = entries.filter((one) => one.outcome !== "error").length;
  const total = (pick: (one: Entry) => number) => entries.reduce((sum, one) => sum + pick(one), 0);
  const times = entries.flatMap((one) => (one.total_ms == null || one.outcome !== "ok" ? [] : [one.total_ms]));
  const calls: Curve[] = useMemo(() => [
    { name: "answered", values: slots.of.map((slot) => slot.filter((one) => one.outcome !== "error").length), filled: true },
    { name: "failed", values: slots.of.map((slot) => slot.filter((one) => one.outcome === "error").length), colour: "#d9534f", filled: true },
  ], [slots]);
  const cost: Curve[] = useMemo(() => [
    { name: "cost", values: slots.of.map((slot) => slot.reduce((sum, one) => sum + one.cost_nanousd, 0) / NANO), filled: true, colour: "#5b7fd6" },
  ], [slots]);
  return (
    <>
      <Figures of={[
        ["Calls", count(entries.length), entries.length >= MOST ? "or more" : undefined],
        ["Answered", share(good / entries.length)],
        ["Cost", money(total((one) => one.cost_nanousd) / NANO)],
        ["Tokens", count(total((one) => one.input_tokens + one.output_tokens))],
        ["Half within", millis(quantile(times, 0.5))],
        ["95 % within", millis(quantile(times, 0.95))],
      ]} />
      <div class="two">
        <Sheet title="Calls a minute"><Chart label="Calls a minute, answered and failed" at={slots.at} curves={calls} show={count} /></Sheet>
        <Sheet title="Cost a minute"><Chart label="Cost a minute in dollars" at={slots.at} curves={cost} show={money} /></Sheet>
      </div>
      <div class="two">
        <Ranking title="Most asked" of={entries} by={(one) => served(one.model_id, one.provider_id) || "nobody"} />
        <Ranking title="Who asks" of={entries} by={(one) => one.program || "unknown"} />
      </div>
    </>
  );
}

function Ranking({ title, of, by }: { title: string; of: readonly Entry[]; by: (one: Entry) => string }) {
  const ranked = useMemo(() => {
    const found = new Map<string, { calls: number; cost: number; failed: number }>();
    for (const one of of) {
      const sum = found.get(by(one)) ?? { calls: 0, cost: 0, failed: 0 };
      sum.calls += 1;
      sum.cost += one.cost_nanousd;
      sum.failed += one.outcome === "error" ? 1 : 0;
      found.set(by(one), sum);
    }
    return [...found].sort(([, a], [, b]) => b.calls - a.calls).slice(0, 8);
  }, [of]);
  return (
    <Sheet title={title} flush>
      <table aria-label={title}>
        <thead><tr><th scope="col">Name</th><th scope="col" class="num">Calls</th><th scope="col" class="num">Failed</th><th scope="col" class="num">Cost</th></tr></thead>
        <tbody>
          {ranked.map(([name, sum]) => (
            <tr key={name}>
              <td>{name}</td>
              <td class="num">{count(sum.calls)}</td>
              <td class="num">{sum.failed ? <span class="bad">{share(sum.failed / sum.calls)}</span> : "–"}</td>
              <td class="num">{money(sum.cost / NANO)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Sheet>
  );
}

function Events() {
  const shown = others.value.slice(0, 12);
  if (!shown.length) return null;
  return (
    <Sheet title="What else happened" flush>
      <table aria-label="Events">
        <tbody>
          {shown.map((one) => (
            <tr key={one.id}>
              <td><Badge tone={one.type === "audit" ? "" : "warn"}>{one.type.replaceAll("_", " ")}</Badge></td>
              <td>{told(one.data)}</td>
              <td class="num quiet"><Time at={(one.data["timestamp"] ?? one.data["at"]) as number | undefined} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </Sheet>
  );
}

function told(data: Record<string, unknown>): string {
  const names = ["action", "subject", "actor", "provider_id", "credential", "owner", "state", "host", "reason", "outcome"];
  return names.flatMap((name) => (data[name] ? [String(data[name])] : [])).join(" · ");
}
