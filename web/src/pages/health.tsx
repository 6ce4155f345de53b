// How providers are, and what became of them in the last day.

import { useMemo } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Empty, Facts, Head, Sheet, Shown, Time } from "../parts/basics";
import { absolute, count, millis, share, words } from "../parts/format";
import { others } from "../state/events";
import { useLoaded } from "../state/loaded";

type Moved = Schemas["Moved"];
const DAY = 86_400;
const TONES = { healthy: "good", degraded: "warn", half_open: "warn", down: "bad", ready: "good", parked: "bad" } as const;
const tone = (state: string) => TONES[state as keyof typeof TONES] ?? "";
const TELLING = new Set(["health_change", "credential_parked", "credential_unparked"]);

export function Health() {
  const health = useLoaded(() => done(api.GET("/admin/v1/health")), [], { every: 3000 });
  // What is told of is on its way to the store: every change asks for the history again, and so does time.
  const news = others.value.find((one) => TELLING.has(one.type))?.id;
  const history = useLoaded(async () => {
    const until = Date.now() / 1000;
    return { until, moves: (await done(api.GET("/admin/v1/health/history"))).items };
  }, [news], { every: 5000 });
  const day = history.value;
  return (
    <>
      <Head title="Health">What is learned from real calls: who answers, how fast, who is left alone for a while.</Head>
      <Shown of={health}>
        {({ providers }) =>
          providers.length === 0 ? <Sheet><Empty title="No provider was asked yet"><p>Health is measured on traffic; there is none so far.</p></Empty></Sheet> : (
            <div class="grid">{providers.map((one) => <Provider key={one.provider_id} of={one} day={day} />)}</div>
          )
        }
      </Shown>
      <Sheet title="The last day" flush>
        <Shown of={history}>
          {({ moves }) => moves.length === 0 ? <p class="empty">Nothing has changed in the last day.</p> : <Moves of={moves} />}
        </Shown>
      </Sheet>
    </>
  );
}

function Moves({ of }: { of: readonly Moved[] }) {
  return (
    <div class="table-frame" role="region" aria-label="History, scrolled" tabIndex={0}>
      <table aria-label="History">
        <thead><tr><th scope="col">When</th><th scope="col">Provider</th><th scope="col">Was</th><th scope="col">Is</th><th scope="col">Why</th></tr></thead>
        <tbody>
          {of.map((one, index) => (
            <tr key={index}>
              <td class="quiet"><Time at={one.at} /></td>
              <td>{one.provider_id}{one.credential && <span class="quiet"> · credential {one.credential}{one.model_id && ` for ${one.model_id}`}</span>}</td>
              <td><Badge tone={tone(one.before)}>{words(one.before)}</Badge></td>
              <td><Badge tone={tone(one.after)}>{words(one.after)}</Badge></td>
              <td class="prose">{words(one.reason)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface Stretch {
  state: string;
  since: number;
  until: number;
}

/** The states of a provider over the last day, oldest first; before its first change it was what that began from. */
function stretches(moves: readonly Moved[], until: number, now: string): Stretch[] {
  const found: Stretch[] = [];
  let [end, first] = [until, now];
  for (const one of moves) {
    found.push({ state: one.after, since: one.at, until: end });
    [end, first] = [one.at, one.before];
  }
  found.push({ state: first, since: until - DAY, until: end });
  return found.reverse();
}

function Strip({ of, until }: { of: readonly Stretch[]; until: number }) {
  const ill = of.filter((one) => one.state === "down").reduce((sum, one) => sum + one.until - one.since, 0);
  return (
    <div class="strip" role="img" aria-label={`The last day: down for ${millis(ill * 1000)}`}>
      {of.map((one) => (
        <i
          key={one.since}
          class={tone(one.state)}
          title={`${words(one.state)} from ${absolute(one.since)}`}
          style={{ left: `${((one.since - until + DAY) / DAY) * 100}%`, width: `${((one.until - one.since) / DAY) * 100}%` }}
        />
      ))}
    </div>
  );
}

function Provider({ of, day }: { of: Schemas["HealthShown"]; day: { until: number; moves: readonly Moved[] } | undefined }) {
  const over = useMemo(
    () => day && stretches(day.moves.filter((one) => one.kind === "health" && one.provider_id === of.provider_id), day.until, of.state),
    [day, of.provider_id, of.state],
  );
  return (
    <Sheet title={of.provider_id} more={<Badge tone={TONES[of.state]}>{words(of.state)}</Badge>}>
      <div class="stack">
        {over && day && <Strip of={over} until={day.until} />}
        <Facts of={[
          ["Calls", count(of.calls)],
          ["Fails", of.calls ? share(of.error_rate) : ""],
          ["Takes", of.calls ? millis(of.latency_ms) : ""],
          ["Ejected", of.ejections ? `${of.ejections} times` : "never"],
          ["Asked again", of.cooldown_until ? <Time at={of.cooldown_until} /> : ""],
          ["Parked until", of.parked_until ? <Time at={of.parked_until} /> : ""],
          ["Last success", <Time at={of.last_success_at} />],
          ["Last error", of.last_error ? <>{of.last_error} (<Time at={of.last_error_at} />)</> : "none"],
        ]} />
      </div>
    </Sheet>
  );
}
