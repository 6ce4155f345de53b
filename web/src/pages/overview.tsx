// The first look: is it working, what does it cost, what needs somebody.

import { useMemo } from "preact/hooks";
import { Link } from "wouter-preact";
import { api, done, type Schemas } from "../api/client";
import { Badge, Empty, Figures, Head, Sheet, Shown, Time } from "../parts/basics";
import { Chart, type Curve } from "../parts/chart";
import { count, millis, money, NANO, share } from "../parts/format";
import { changes, others } from "../state/events";
import { useLoaded } from "../state/loaded";
import { series, type Grid } from "../state/series";

const HOUR = 3600;
const MINUTE = 60;

type Stats = Schemas["Stats"];
interface Told {
  stats: Stats;
  grid: Grid;
  underway: number;
}

async function latest(): Promise<Told> {
  const until = Math.floor(Date.now() / 1000) + 1;
  const [stats, grid, underway] = await Promise.all([
    done(api.GET("/admin/v1/stats")),
    series({ metrics: ["calls", "errors", "cost_nanousd"], range: { since: until - HOUR, until }, step: MINUTE }),
    done(api.GET("/admin/v1/underway")),
  ]);
  return { stats, grid, underway: underway.calls };
}

export function Overview() {
  const info = useLoaded(() => done(api.GET("/admin/v1/info")), [], { every: 15_000, follow: true });
  const traffic = useLoaded(latest, [], { every: 15_000 });
  return (
    <>
      <Head title="Overview">The last hour, and what is running.</Head>
      <Shown of={info}>{(now) => <Attention info={now} />}</Shown>
      <Shown of={traffic}>
        {(found) => {
          const hour = found.stats.global.find((one) => one.window === "1h");
          return !hour?.request_count ? (
            <Sheet>
              <Empty title="No calls in the last hour">
                <p>Put a program behind TokenHub: nothing in it has to change.</p>
                <p><Link href="/ui/setup" class="button main">Set up a client</Link></p>
              </Empty>
            </Sheet>
          ) : (
            <Traffic hour={hour} {...found} />
          );
        }}
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

function Traffic({ hour, stats, grid, underway }: Told & { hour: Schemas["WindowShown"] }) {
  const [calls, cost] = useMemo(() => {
    const [all, failed] = [grid.of("calls", "all", 0), grid.of("errors", "all", 0)];
    const answered: Curve[] = [
      { name: "answered", values: all.map((one, index) => one - (failed[index] ?? 0)), filled: true },
      { name: "failed", values: failed, colour: "#d9534f", filled: true },
    ];
    const spent: Curve[] = [
      { name: "cost", values: grid.of("cost_nanousd", "all", 0).map((one) => one / NANO), filled: true, colour: "#5b7fd6" },
    ];
    return [answered, spent];
  }, [grid]);
  return (
    <>
      <Figures of={[
        ["Calls", count(hour.request_count), stats.complete ? undefined : "or more"],
        ["Under way", count(underway)],
        ["Answered", share(1 - hour.error_rate)],
        ["Cost", money(hour.total_cost_usd)],
        ["Tokens", count(hour.total_tokens)],
        ["Half within", millis(hour.p50_latency_ms)],
        ["95 % within", millis(hour.p95_latency_ms)],
      ]} />
      <div class="two">
        <Sheet title="Calls a minute"><Chart label="Calls a minute, answered and failed" at={grid.at} curves={calls} show={count} /></Sheet>
        <Sheet title="Cost a minute"><Chart label="Cost a minute in dollars" at={grid.at} curves={cost} show={money} /></Sheet>
      </div>
      <div class="two">
        <Ranking title="Most asked" of={(stats.by_model["1h"] ?? []).map((one) => ({ name: one.model || "nobody", ...one }))} />
        <Ranking title="Who asks" of={(stats.by_program["1h"] ?? []).map((one) => ({ name: one.program || "unknown", ...one }))} />
      </div>
    </>
  );
}

interface Ranked {
  name: string;
  request_count: number;
  error_rate: number;
  error_count: number;
  total_cost_usd: number;
}

function Ranking({ title, of }: { title: string; of: readonly Ranked[] }) {
  return (
    <Sheet title={title} flush>
      <div class="table-frame" role="region" aria-label={`${title}, scrolled`} tabIndex={0}>
        <table aria-label={title}>
          <thead><tr><th scope="col">Name</th><th scope="col" class="num">Calls</th><th scope="col" class="num">Failed</th><th scope="col" class="num">Cost</th></tr></thead>
          <tbody>
            {of.slice(0, 8).map((one) => (
              <tr key={one.name}>
                <td>{one.name}</td>
                <td class="num">{count(one.request_count)}</td>
                <td class="num">{one.error_count ? <span class="bad">{share(one.error_rate)}</span> : "–"}</td>
                <td class="num">{money(one.total_cost_usd)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Sheet>
  );
}

function Events() {
  const shown = others.value.slice(0, 12);
  if (!shown.length) return null;
  return (
    <Sheet title="What else happened" flush>
      <div class="table-frame" role="region" aria-label="Events, scrolled" tabIndex={0}>
        <table aria-label="Events">
          <tbody>
            {shown.map((one) => (
              <tr key={one.id}>
                <td><Badge tone={one.type === "audit" ? "" : "warn"}>{one.type.replaceAll("_", " ")}</Badge></td>
                <td>{told(one.type, one.data)}</td>
                <td class="num quiet"><Time at={(one.data["timestamp"] ?? one.data["at"]) as number | undefined} /></td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Sheet>
  );
}

function told(type: string, data: Record<string, unknown>): string {
  if (type === "circuit_change") return `${data["name"]}: ${data["open"] ? `has failed, ${data["reason"] || "several times"}` : "is there again"}`;
  if (type === "limits_shared") return data["shared"] ? "Limits are counted together with other processes again." : "Limits are counted by each process for itself.";
  if (type === "loop_blocked") return `All calls waited for ${data["seconds"]} s.`;
  const names = ["action", "subject", "actor", "provider_id", "credential", "owner", "old_state", "new_state", "state", "host", "reason", "outcome"];
  return names.flatMap((name) => (data[name] ? [String(data[name])] : [])).join(" · ");
}
