// Who asks, through what, of whom: the calls of the last hour as a river.

import { sankey, sankeyLinkHorizontal, type SankeyLink, type SankeyNode } from "d3-sankey";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Empty, Head, Sheet, Shown } from "../parts/basics";
import { count, millis, money, NANO } from "../parts/format";
import { ink } from "../parts/inks";
import { useLoaded } from "../state/loaded";
import { quantile, recent, type Entry } from "../state/recent";

const HOUR = 3600;
type By = "calls" | "cost" | "tokens";

interface Place { id: string; name: string; column: number }
interface Stream { value: number; calls: number; cost: number; times: number[]; failed: number }
type Node = SankeyNode<Place, Stream>;
type Link = SankeyLink<Place, Stream>;

export function Flow() {
  const [by, setBy] = useState<By>("calls");
  const log = useLoaded(() => recent(5000, Date.now() / 1000 - HOUR), [], { every: 20_000 });
  return (
    <>
      <Head
        title="Flow"
        more={
          <select aria-label="Width shows" value={by} onChange={(event) => setBy(event.currentTarget.value as By)}>
            <option value="calls">Width: calls</option>
            <option value="cost">Width: cost</option>
            <option value="tokens">Width: tokens</option>
          </select>
        }
      >
        From program to lane to provider to model, over the last hour. The redder a stream, the longer its calls take.
      </Head>
      <Shown of={log}>
        {(entries) => (
          <Sheet>
            {entries.length ? <River of={entries} by={by} /> : <Empty title="No calls in the last hour"><p>The map is drawn from what flows.</p></Empty>}
          </Sheet>
        )}
      </Shown>
    </>
  );
}

function steps(one: Entry): Place[] {
  const places = [one.program || "unknown program", one.lane, one.provider_id || "nobody", one.model_id || one.error_class || "no model"];
  return places.map((name, column) => ({ id: `${column} ${name}`, name, column }));
}

function gathered(entries: readonly Entry[], by: By): { nodes: Place[]; links: (Stream & { source: string; target: string })[] } {
  const nodes = new Map<string, Place>();
  const links = new Map<string, Stream & { source: string; target: string }>();
  const worth = { calls: () => 1, cost: (one: Entry) => one.cost_nanousd / NANO, tokens: (one: Entry) => one.input_tokens + one.output_tokens }[by];
  for (const one of entries) {
    const path = steps(one);
    for (const place of path) nodes.set(place.id, place);
    path.slice(1).forEach((target, index) => {
      const source = path[index] as Place;
      const key = `${source.id}|${target.id}`;
      const link = links.get(key) ?? { source: source.id, target: target.id, value: 0, calls: 0, cost: 0, times: [], failed: 0 };
      link.value += worth(one);
      link.calls += 1;
      link.cost += one.cost_nanousd / NANO;
      link.failed += one.outcome === "error" ? 1 : 0;
      if (one.total_ms != null) link.times.push(one.total_ms);
      links.set(key, link);
    });
  }
  return { nodes: [...nodes.values()], links: [...links.values()].filter((link) => link.value > 0) };
}

function River({ of, by }: { of: readonly Entry[]; by: By }) {
  const host = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(900);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => entry && setWidth(entry.contentRect.width));
    if (host.current) watch.observe(host.current);
    return () => watch.disconnect();
  }, []);
  const drawn = useMemo(() => {
    const { nodes, links } = gathered(of, by);
    const used = new Set(links.flatMap((link) => [link.source, link.target]));
    const kept = nodes.filter((node) => used.has(node.id));
    if (!kept.length) return undefined;
    const tallest = Math.max(...[0, 1, 2, 3].map((column) => kept.filter((node) => node.column === column).length));
    const height = Math.max(320, tallest * 42);
    const layout = sankey<Place, Stream>().nodeId((node) => node.id).nodeAlign((node) => node.column).nodeWidth(10).nodePadding(18).extent([[1, 8], [Math.max(width - 190, 300), height - 8]]);
    const graph = layout({ nodes: kept.map((node) => ({ ...node })), links: links.map((link) => ({ ...link })) as never });
    return { ...graph, height };
  }, [of, by, width]);
  return (
    <div ref={host}>
      {drawn && (
        <svg width={width} height={drawn.height} role="img" aria-label="Calls from programs to models">
          {drawn.links.map((link: Link) => {
            const half = quantile(link.times, 0.5);
            const told = `${(link.source as Node).name} → ${(link.target as Node).name}: ${count(link.calls)} calls, ${money(link.cost)}, half within ${millis(half)}${link.failed ? `, ${link.failed} failed` : ""}`;
            return (
              <path key={told} d={sankeyLinkHorizontal()(link as never) ?? ""} fill="none" stroke={heat(half)} stroke-opacity="0.45" stroke-width={Math.max(link.width ?? 1, 1)}>
                <title>{told}</title>
              </path>
            );
          })}
          {drawn.nodes.map((node: Node) => (
            <g key={node.id}>
              <rect x={node.x0} y={node.y0} width={10} height={Math.max((node.y1 ?? 0) - (node.y0 ?? 0), 1)} fill={ink(node.column)} rx="2" />
              <text x={(node.x1 ?? 0) + 6} y={((node.y0 ?? 0) + (node.y1 ?? 0)) / 2} dy="0.35em" fill="currentColor" font-size="12">
                {node.name}
              </text>
            </g>
          ))}
        </svg>
      )}
    </div>
  );
}

/** From green to red, by how long half of the calls take: a tenth of a second to half a minute. */
function heat(time: number | null): string {
  if (time === null) return "gray";
  const share = Math.min(1, Math.max(0, Math.log(time / 100) / Math.log(300)));
  return `hsl(${Math.round(150 - 150 * share)} 60% 48%)`;
}
