// Lines over time, by uPlot, in the colours of the page.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { dark } from "../state/theme";
import { ink } from "./inks";


export interface Curve {
  name: string;
  values: readonly (number | null)[];
  colour?: string;
  filled?: boolean;
  dashed?: boolean;
}

interface Props {
  label: string;
  /** Shared by all curves; seconds of the epoch where it is time. */
  at: readonly number[];
  curves: readonly Curve[];
  show: (value: number) => string;
  time?: boolean;
  height?: number;
  bars?: boolean;
  /** What is done with a stretch that was dragged over; without it the chart itself shows that stretch. */
  zoom?: (from: number, to: number) => void;
  /** What a double click does then. */
  all?: () => void;
  /** Charts of one name show the same moment under the pointer. */
  together?: string;
}

export function Chart({ label, at, curves, show, time = true, height = 200, bars, zoom, all, together }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const acts = useRef({ zoom, all });
  acts.current = { zoom, all };
  const zooms = zoom !== undefined;
  const night = dark.value;
  useEffect(() => {
    const host = place.current;
    if (!host) return;
    const style = getComputedStyle(document.documentElement);
    const [quiet, line] = [style.getPropertyValue("--faint"), style.getPropertyValue("--line")];
    const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "11px system-ui" };
    const paths = bars ? uPlot.paths.bars?.({ size: [0.8, 60] }) : undefined;
    const plot = new uPlot(
      {
        width: host.clientWidth,
        height,
        scales: { x: { time } },
        cursor: {
          y: false,
          ...(zooms && { drag: { x: true, y: false, setScale: false } }),
          ...(together !== undefined && { sync: { key: together } }),
        },
        hooks: {
          setSelect: [
            (plot) => {
              const { left, width } = plot.select;
              if (!zooms || width < 4) return;
              acts.current.zoom?.(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
            },
          ],
        },
        axes: [axis, { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => show(tick)) }],
        series: [
          {},
          ...curves.map((curve, index) => {
            const stroke = curve.colour ?? ink(index);
            return {
              label: curve.name,
              stroke,
              width: 1.6,
              points: { show: curve.values.length < 3 },
              value: (_: uPlot, value: number | null) => (value == null ? "–" : show(value)),
              ...(curve.dashed ? { dash: [6, 4] } : {}),
              ...(curve.filled || bars ? { fill: `${stroke}33` } : {}),
              ...(paths ? { paths } : {}),
            };
          }),
        ],
      },
      [[...at], ...curves.map((curve) => [...curve.values])] as uPlot.AlignedData,
      host,
    );
    const watch = new ResizeObserver(() => plot.setSize({ width: host.clientWidth, height }));
    watch.observe(host);
    const out = () => acts.current.all?.();
    host.addEventListener("dblclick", out);
    return () => {
      host.removeEventListener("dblclick", out);
      watch.disconnect();
      plot.destroy();
    };
  }, [at, curves, night, height, bars, zooms, together]);
  return <div class="chart" ref={place} role="img" aria-label={label} />;
}
