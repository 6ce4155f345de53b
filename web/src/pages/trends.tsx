// Cost, tokens, times and errors over hours and days.

import { useMemo, useState } from "preact/hooks";
import { Empty, Head, Sheet, Shown } from "../parts/basics";
import { Chart, type Curve } from "../parts/chart";
import { count, millis, money, NANO, share } from "../parts/format";
import { useLoaded } from "../state/loaded";
import { quantile, recent, slotted, type Entry } from "../state/recent";

const SPANS = [["1 hour", 3600], ["6 hours", 21_600], ["1 day", 86_400], ["7 days", 604_800]] as const;
const MOST = 20_000;
const SLOTS = 72;
const PARTS = {
  model: (one: Entry) => one.model_id || "none",
  provider: (one: Entry) => one.provider_id || "none",
  program: (one: Entry) => one.program || "unknown",
  key: (one: Entry) => one.key_id || "none",
  project: (one: Entry) => one.project || "none",
} as const;
type Part = keyof typeof PARTS;

export function Trends() {
  const [span, setSpan] = useState(3600);
  const [part, setPart] = useState<Part>("model");
  const log = useLoaded(async () => {
    const until = Date.now() / 1000;
    return { until, entries: await recent(MOST, until - span) };
  }, [span]);
  return (
    <>
      <Head
        title="Trends"
        more={
          <>
            <select aria-label="Span" value={span} onChange={(event) => setSpan(Number(event.currentTarget.value))}>
              {SPANS.map(([name, seconds]) => <option key={name} value={seconds}>{name}</option>)}
            </select>
            <select aria-label="Compare by" value={part} onChange={(event) => setPart(event.currentTarget.value as Part)}>
              {Object.keys(PARTS).map((name) => <option key={name} value={name}>by {name}</option>)}
            </select>
          </>
        }
      >
        Drag over a chart to look closer; a double click shows all again.
      </Head>
      <Shown of={log}>
        {({ entries, until }) =>
          entries.length === 0 ? <Sheet><Empty title="No calls in this time" /></Sheet> : (
            <>
              {entries.length >= MOST && <p class="note warn">Drawn from the latest {count(MOST)} calls of this time.</p>}
              <Curves entries={entries} since={until - span} until={until} part={part} />
            </>
          )
        }
      </Shown>
    </>
  );
}

function Curves({ entries, since, until, part }: { entries: readonly Entry[]; since: number; until: number; part: Part }) {
  const drawn = useMemo(() => {
    const slots = slotted(entries, since, until, SLOTS);
    const by = PARTS[part];
    const sizes = new Map<string, number>();
    for (const one of entries) sizes.set(by(one), (sizes.get(by(one)) ?? 0) + 1);
    const names = [...sizes].sort(([, a], [, b]) => b - a).slice(0, 6).map(([name]) => name);
    const per = (value: (slot: Entry[]) => number | null): Curve[] =>
      names.map((name) => ({ name, values: slots.of.map((slot) => value(slot.filter((one) => by(one) === name))) }));
    const sum = (pick: (one: Entry) => number) => (slot: Entry[]) => slot.reduce((total, one) => total + pick(one), 0);
    const times = (slot: Entry[]) => slot.flatMap((one) => (one.total_ms == null ? [] : [one.total_ms]));
    return {
      at: slots.at,
      cost: per(sum((one) => one.cost_nanousd / NANO)),
      tokens: per(sum((one) => one.input_tokens + one.output_tokens)),
      latency: ([0.5, 0.95, 0.99] as const).map((part) => ({ name: `p${part * 100}`, values: slots.of.map((slot) => quantile(times(slot), part)) })),
      errors: per((slot) => (slot.length ? slot.filter((one) => one.outcome === "error").length / slot.length : null)),
    };
  }, [entries, since, until, part]);
  return (
    <div class="two">
      <Sheet title="Cost"><Chart label="Cost in dollars" at={drawn.at} curves={drawn.cost} show={money} /></Sheet>
      <Sheet title="Tokens"><Chart label="Tokens" at={drawn.at} curves={drawn.tokens} show={count} /></Sheet>
      <Sheet title="How long calls take"><Chart label="Latency percentiles" at={drawn.at} curves={drawn.latency} show={millis} /></Sheet>
      <Sheet title="Share that fails"><Chart label="Share of failed calls" at={drawn.at} curves={drawn.errors} show={share} /></Sheet>
    </div>
  );
}
