// Who asks, through what, of whom: the calls of a while as a river.

import { sankey, sankeyLinkHorizontal, type SankeyLink, type SankeyNode } from "d3-sankey";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Empty, Head, Sheet, Shown } from "../parts/basics";
import { count, millis, money, NANO } from "../parts/format";
import { ink } from "../parts/inks";
import { useLoaded } from "../state/loaded";

type Told = Schemas["FlowShown"];
type Streamed = Told["streams"][number];
type By = "calls" | "cost" | "tokens";
const WORTH: Record<By, (one: Streamed) => number> = {
  calls: (one) => one.calls,
  cost: (one) => one.cost_nanousd / NANO,
  tokens: (one) => one.tokens,
};
const WINDOWS = [["5m", "5 minutes"], ["1h", "1 hour"], ["24h", "1 day"]] as const;
type Span = (typeof WINDOWS)[number][0];
/** What is said where a call has none; the columns are program, host, provider, model. */
const NONE = ["unknown program", "TokenHub itself", "no provider", "no model"] as const;
const LONG = 30;
/** Pixels: the least that four columns and their names need, and those that the last names take. */
const [LEAST, NAMES, HIGH] = [720, 200, 42];

interface Place { id: string; name: string; column: number; rank: number }
interface Stream { value: number; calls: number; cost: number; half: number | null; failed: number }
type Node = SankeyNode<Place, Stream>;
type Link = SankeyLink<Place, Stream>;

export function Flow() {
  const [by, setBy] = useState<By>("calls");
  const [span, setSpan] = useState<Span>("1h");
  const flow = useLoaded(() => done(api.GET("/admin/v1/tsdb/flow", { params: { query: { window: span } } })), [span], { every: 20_000 });
  return (
    <>
      <Head
        title="Flow"
        more={
          <>
            <select aria-label="Span" value={span} onChange={(event) => setSpan(event.currentTarget.value as Span)}>
              {WINDOWS.map(([name, title]) => <option key={name} value={name}>{title}</option>)}
            </select>
            <select aria-label="Width shows" value={by} onChange={(event) => setBy(event.currentTarget.value as By)}>
              <option value="calls">Width: calls</option>
              <option value="cost">Width: cost</option>
              <option value="tokens">Width: tokens</option>
            </select>
          </>
        }
      >
        From program to the host it meant, to the provider that was asked, to the model that served; where none did, to the cause.
      </Head>
      <Shown of={flow}>
        {(told) => (
          <Sheet>
            {told.calls ? <River of={told} by={by} /> : <Empty title="No calls in this time"><p>The map is drawn from what flows.</p></Empty>}
          </Sheet>
        )}
      </Shown>
    </>
  );
}

function place(of: Told, column: number, value: string | null): Place {
  const name = value === null ? `${(of.places[column] ?? 0) - apart(of, column)} others` : value || (NONE[column] as string);
  return { id: `${column} ${value === null ? "" : `=${value}`}`, name, column, rank: 0 };
}

/** How many places of a column have a name of their own. */
const apart = (of: Told, column: number): number =>
  new Set(of.streams.flatMap((one) => (one.column === column ? [one.source] : one.column + 1 === column ? [one.target] : [])).filter((one) => one !== null)).size;

// A place stands where its widest stream comes from, and else by its name: so the map looks the same at the next look.
function gathered(of: Told, by: By): { nodes: Place[]; links: (Stream & { source: string; target: string })[] } {
  const nodes = new Map<string, Place>();
  const known = (column: number, value: string | null): Place => {
    const one = place(of, column, value);
    return nodes.get(one.id) ?? (nodes.set(one.id, one), one);
  };
  const widest = new Map<string, { from: Place; calls: number }>();
  const links = of.streams.flatMap((one) => {
    const [source, target] = [known(one.column, one.source), known(one.column + 1, one.target)];
    if (one.calls > (widest.get(target.id)?.calls ?? 0)) widest.set(target.id, { from: source, calls: one.calls });
    const value = WORTH[by](one);
    if (value <= 0) return [];
    return [{ source: source.id, target: target.id, value, calls: one.calls, cost: one.cost_nanousd / NANO, half: one.p50_latency_ms, failed: one.errors }];
  });
  for (const column of [0, 1, 2, 3]) {
    const here = [...nodes.values()].filter((node) => node.column === column);
    const from = (node: Place) => widest.get(node.id)?.from.rank ?? 0;
    here.sort((one, other) => from(one) - from(other) || (one.name < other.name ? -1 : 1));
    here.forEach((node, index) => { node.rank = index; });
  }
  const used = new Set(links.flatMap((link) => [link.source, link.target]));
  return { nodes: [...nodes.values()].filter((node) => used.has(node.id)), links };
}

const short = (name: string): string => (name.length > LONG ? `${name.slice(0, LONG - 1)}…` : name);

function River({ of, by }: { of: Told; by: By }) {
  const host = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(900);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => entry && setRoom(entry.contentRect.width));
    if (host.current) watch.observe(host.current);
    return () => watch.disconnect();
  }, []);
  const width = Math.max(room, LEAST);
  const drawn = useMemo(() => {
    const { nodes, links } = gathered(of, by);
    if (!nodes.length) return undefined;
    const tallest = Math.max(...[0, 1, 2, 3].map((column) => nodes.filter((node) => node.column === column).length));
    const height = Math.max(320, tallest * HIGH);
    const layout = sankey<Place, Stream>().nodeId((node) => node.id).nodeAlign((node) => node.column).nodeSort((one, other) => one.rank - other.rank)
      .nodeWidth(10).nodePadding(18).extent([[1, 8], [width - NAMES, height - 8]]);
    return { ...layout({ nodes, links: links as never }), height };
  }, [of, by, width]);
  return (
    <div class="stack">
      <p class="quiet side-by-side river-key">
        <span>{count(of.calls)} calls, all of this time{of.complete ? "" : " that are counted yet"}.</span>
        <span class="heat" aria-hidden="true" />
        <span>A stream’s colour is the time that half of its answers take: 0.1 s is green, half a minute red, none grey.</span>
      </p>
      <div ref={host} class="table-frame" role="region" aria-label="The map, scrolled" tabIndex={0}>
        {drawn ? (
          <svg width={width} height={drawn.height} role="img" aria-label="Calls from programs to models">
            {drawn.links.map((link: Link) => {
              const [from, to] = [link.source as Node, link.target as Node];
              const told = `${from.name} → ${to.name}: ${count(link.calls)} calls, ${money(link.cost)}, half within ${millis(link.half)}${link.failed ? `, ${count(link.failed)} failed` : ""}`;
              return (
                <path key={`${from.id}|${to.id}`} d={sankeyLinkHorizontal()(link as never) ?? ""} fill="none" stroke={heat(link.half)} stroke-opacity="0.45" stroke-width={Math.max(link.width ?? 1, 1)}>
                  <title>{told}</title>
                </path>
              );
            })}
            {drawn.nodes.map((node: Node) => (
              <g key={node.id}>
                <rect x={node.x0} y={node.y0} width={10} height={Math.max((node.y1 ?? 0) - (node.y0 ?? 0), 1)} fill={ink(node.column)} rx="2" />
                <text x={(node.x1 ?? 0) + 6} y={((node.y0 ?? 0) + (node.y1 ?? 0)) / 2} dy="0.35em" fill="currentColor" font-size="12">
                  {short(node.name)}
                  <title>{node.name}</title>
                </text>
              </g>
            ))}
          </svg>
        ) : <Empty title={`Nothing of this had a ${by === "cost" ? "cost" : "token"}`} />}
      </div>
    </div>
  );
}

/** From green to red, by how long half of the answers take: a tenth of a second to half a minute. */
function heat(time: number | null): string {
  if (time === null) return "gray";
  const share = Math.min(1, Math.max(0, Math.log(time / 100) / Math.log(300)));
  return `hsl(${Math.round(150 - 150 * share)} 60% 48%)`;
}
