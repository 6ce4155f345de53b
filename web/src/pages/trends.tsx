// Cost, tokens, times and errors over hours, days and months.

import { useMemo, useState } from "preact/hooks";
import { Button, Empty, Figures, Head, Sheet, Shown } from "../parts/basics";
import { Chart, type Curve } from "../parts/chart";
import { absolute, count, millis, money, NANO, share } from "../parts/format";
import { useLoaded } from "../state/loaded";
import { PARTS, series, summed, type Grid, type Part, type Range } from "../state/series";

const DAY = 86_400;
const SPANS = [
  ["1 hour", 3600], ["6 hours", 21_600], ["1 day", DAY], ["7 days", 7 * DAY], ["30 days", 30 * DAY], ["90 days", 90 * DAY], ["1 year", 365 * DAY],
] as const;
const SUMS = ["calls", "errors", "cost_nanousd", "tokens"] as const;
const TIMES = ["latency_p50", "latency_p95", "latency_p99", "ttft_p50", "ttft_p95", "pace_p50"] as const;
const LEAST = 60;

interface Told {
  parts: Grid;
  all: Grid;
  causes: Grid;
  before: Grid | undefined;
}

async function told(range: Range, part: Part, compared: boolean): Promise<Told> {
  const length = range.until - range.since;
  const metrics = [...SUMS, ...TIMES];
  // What is long ago may be kept in longer stretches only: both periods are drawn in those.
  const before = compared ? await series({ metrics, range: { since: range.since - length, until: range.since } }) : undefined;
  const step = before?.step;
  const [parts, all, causes] = await Promise.all([
    series({ metrics: SUMS, range, step, by: part }),
    series({ metrics, range, step }),
    series({ metrics: ["errors"], range, step, by: "cause" }),
  ]);
  return { parts, all, causes, before };
}

export function Trends() {
  const [span, setSpan] = useState(3600);
  const [part, setPart] = useState<Part>("model");
  const [compared, setCompared] = useState(false);
  const [closer, setCloser] = useState<Range>();
  const found = useLoaded(() => {
    const until = Math.floor(Date.now() / 1000) + 1;
    return told(closer ?? { since: until - span, until }, part, compared);
  }, [span, part, compared, closer]);
  const zoom = (since: number, until: number) => {
    if (until - since >= LEAST) setCloser({ since: Math.floor(since), until: Math.ceil(until) });
  };
  return (
    <>
      <Head
        title="Trends"
        more={
          <>
            {closer && <Button act={() => setCloser(undefined)}>Show all</Button>}
            <label class="check">
              <input type="checkbox" checked={compared} onChange={(event) => setCompared(event.currentTarget.checked)} /> with the period before
            </label>
            <select
              aria-label="Span"
              value={span}
              onChange={(event) => {
                setCloser(undefined);
                setSpan(Number(event.currentTarget.value));
              }}
            >
              {SPANS.map(([name, seconds]) => <option key={name} value={seconds}>{name}</option>)}
            </select>
            <select aria-label="Compare by" value={part} onChange={(event) => setPart(event.currentTarget.value as Part)}>
              {PARTS.map((name) => <option key={name} value={name}>by {name}</option>)}
            </select>
          </>
        }
      >
        {closer ? `${absolute(closer.since).slice(0, 19)} to ${absolute(closer.until).slice(0, 19)}. ` : ""}
        Drag over a chart to look closer; a double click shows all again. Days are those of UTC.
      </Head>
      <Shown of={found}>
        {(now) =>
          summed(now.all.of("calls", "all", 0)) === 0 ? <Sheet><Empty title="No calls in this time" /></Sheet> : (
            <>
              {!now.all.complete && <p class="note warn">The log is still being counted: what is shown is less than there was.</p>}
              {now.all.others > 0 && (
                <p class="note warn">{count(now.all.others)} calls were of more series than a day may have, and are counted together as <em>other</em>.</p>
              )}
              <Totals told={now} />
              <Curves told={now} zoom={zoom} all={() => setCloser(undefined)} />
            </>
          )
        }
      </Shown>
    </>
  );
}

function Totals({ told: { all, before } }: { told: Told }) {
  const sum = (grid: Grid, metric: string) => summed(grid.of(metric, "all", 0));
  const figure = (title: string, of: (grid: Grid) => number, show: (value: number) => string) => {
    const now = of(all);
    const then = before && of(before);
    const change = then ? (now - then) / then : undefined;
    return [title, show(now), change === undefined ? undefined : `${change < 0 ? "−" : "+"}${share(Math.abs(change))}`] as const;
  };
  return (
    <Figures
      of={[
        figure("Calls", (grid) => sum(grid, "calls"), count),
        figure("Cost", (grid) => sum(grid, "cost_nanousd") / NANO, money),
        figure("Tokens", (grid) => sum(grid, "tokens"), count),
        figure("Failed", (grid) => sum(grid, "errors") / (sum(grid, "calls") || 1), share),
      ]}
    />
  );
}

function Curves({ told: { parts, all, causes, before }, zoom, all: out }: { told: Told; zoom: (since: number, until: number) => void; all: () => void }) {
  const drawn = useMemo(() => {
    const ratio = (grid: Grid, name: string) => {
      const calls = grid.of("calls", name, 0);
      return grid.of("errors", name, 0).map((errors, index) => (calls[index] ? errors / (calls[index] as number) : null));
    };
    type Values = (grid: Grid, name: string) => (number | null)[];
    const curves = (values: Values): Curve[] => {
      if (!before) return parts.names.map((name) => ({ name, values: values(parts, name) }));
      return [{ name: "now", values: values(all, "all") }, { name: "before", values: values(before, "all"), dashed: true }];
    };
    const times = (metrics: readonly string[]): Curve[] => [
      ...metrics.map((metric) => ({ name: metric.slice(metric.indexOf("_") + 1), values: all.of(metric, "all", null) })),
      ...(before ? metrics.slice(0, 2).map((metric) => ({ name: `${metric.slice(metric.indexOf("_") + 1)} before`, values: before.of(metric, "all", null), dashed: true })) : []),
    ];
    return {
      calls: curves((grid, name) => grid.of("calls", name, 0)),
      cost: curves((grid, name) => grid.of("cost_nanousd", name, 0).map((one) => one / NANO)),
      tokens: curves((grid, name) => grid.of("tokens", name, 0)),
      errors: curves(ratio),
      latency: times(["latency_p50", "latency_p95", "latency_p99"]),
      first: times(["ttft_p50", "ttft_p95"]),
      pace: times(["pace_p50"]),
      causes: causes.names.filter((name) => name !== "none").map((name): Curve => ({ name, values: causes.of("errors", name, 0), filled: true })),
    };
  }, [parts, all, causes, before]);
  const rest = { at: all.at, zoom, all: out, together: "trends" };
  return (
    <div class="two">
      <Sheet title="Cost"><Chart {...rest} label="Cost in dollars" curves={drawn.cost} show={money} /></Sheet>
      <Sheet title="Tokens"><Chart {...rest} label="Tokens" curves={drawn.tokens} show={count} /></Sheet>
      <Sheet title="Calls"><Chart {...rest} label="Calls" curves={drawn.calls} show={count} /></Sheet>
      <Sheet title="How long answers take"><Chart {...rest} label="Latency percentiles" curves={drawn.latency} show={millis} /></Sheet>
      <Sheet title="To the first content"><Chart {...rest} label="Time to the first content" curves={drawn.first} show={millis} /></Sheet>
      <Sheet title="Time per output token"><Chart {...rest} label="Time per output token" curves={drawn.pace} show={millis} /></Sheet>
      <Sheet title="Share that fails"><Chart {...rest} label="Share of failed calls" curves={drawn.errors} show={share} /></Sheet>
      {drawn.causes.length > 0 && <Sheet title="Why calls fail"><Chart {...rest} label="Failed calls by cause" curves={drawn.causes} show={count} /></Sheet>}
    </div>
  );
}
