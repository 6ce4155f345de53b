// Tables that stay smooth with a hundred thousand rows: only those in sight are in the document.

import {
  elementScroll, observeElementOffset, observeElementRect, Virtualizer, type VirtualizerOptions,
} from "@tanstack/virtual-core";
import type { ComponentChildren } from "preact";
import { memo } from "preact/compat";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

export interface Column<Row> {
  name: string;
  title: string;
  cell: (row: Row) => ComponentChildren;
  /** What it is sorted by; without it, it is not. */
  by?: (row: Row) => number | string;
  num?: boolean;
  hint?: string;
}

interface Props<Row> {
  rows: readonly Row[];
  columns: readonly Column<Row>[];
  id: (row: Row) => string;
  open?: (row: Row) => void;
  mark?: (row: Row) => string;
  label: string;
  /** Called when the last rows come into sight. */
  more?: () => void;
  tall?: boolean;
}

const HEIGHT = 33;
const VIRTUAL = 120;
/** So many rows before the last one more are asked for. */
const AHEAD = 100;

export function Table<Row>(props: Props<Row>) {
  const { rows, columns, label, tall } = props;
  const [sort, setSort] = useState<{ name: string; down: boolean }>();
  const sorted = useMemo(() => {
    const by = sort && columns.find((column) => column.name === sort.name)?.by;
    if (!by) return rows;
    const order = (one: Row, other: Row) => {
      const [a, b] = [by(one), by(other)];
      return (a < b ? -1 : a > b ? 1 : 0) * (sort.down ? -1 : 1);
    };
    return [...rows].sort(order);
  }, [rows, sort, columns]);
  const frame = useRef<HTMLDivElement>(null);
  const window = useWindow(frame, sorted.length, props.more);
  const turn = (name: string) =>
    setSort((was) => (was?.name === name ? (was.down ? undefined : { name, down: true }) : { name, down: false }));
  return (
    <div class={`table-frame rows ${tall ? "tall" : ""}`} ref={frame} tabIndex={-1}>
      <table aria-label={label} aria-rowcount={rows.length}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th
                key={column.name}
                scope="col"
                class={column.num ? "num" : ""}
                title={column.hint}
                aria-sort={sort?.name === column.name ? (sort.down ? "descending" : "ascending") : undefined}
              >
                {column.by ? (
                  <button type="button" onClick={() => turn(column.name)}>
                    {column.title}
                    {sort?.name === column.name ? (sort.down ? " ↓" : " ↑") : ""}
                  </button>
                ) : (
                  column.title
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {window.before > 0 && <tr aria-hidden="true" style={{ height: `${window.before}px` }} />}
          {sorted.slice(window.from, window.to).map((row) => (
            <Line key={props.id(row)} row={row} columns={columns} open={props.open} mark={props.mark} />
          ))}
          {window.after > 0 && <tr aria-hidden="true" style={{ height: `${window.after}px` }} />}
        </tbody>
      </table>
    </div>
  );
}

interface LineProps<Row> {
  row: Row;
  columns: readonly Column<Row>[];
  open: ((row: Row) => void) | undefined;
  mark: ((row: Row) => string) | undefined;
}

function Drawn<Row>({ row, columns, open, mark }: LineProps<Row>) {
  const keys = (event: KeyboardEvent) => {
    const at = event.currentTarget as HTMLElement;
    if (event.target !== at) return;
    if (event.key === "Enter") open?.(row);
    if (event.key === "ArrowDown") (at.nextElementSibling as HTMLElement | null)?.focus();
    if (event.key === "ArrowUp") (at.previousElementSibling as HTMLElement | null)?.focus();
    if (event.key === "ArrowDown" || event.key === "ArrowUp") event.preventDefault();
  };
  const opening = open ? { onClick: () => open(row), onKeyDown: keys, tabIndex: 0 } : {};
  return (
    <tr class={`${open ? "opens" : ""} ${mark?.(row) ?? ""}`} {...opening}>
      {columns.map((column) => (
        <td key={column.name} class={column.num ? "num" : ""}>
          {column.cell(row)}
        </td>
      ))}
    </tr>
  );
}

/** A row that stays in sight while others come is not drawn again. */
const Line = memo(Drawn) as typeof Drawn;

interface Window {
  from: number;
  to: number;
  before: number;
  after: number;
}

function useWindow(frame: { current: HTMLDivElement | null }, count: number, more?: () => void): Window {
  const [, draw] = useState(0);
  const scrolls = count > VIRTUAL;
  const options: VirtualizerOptions<HTMLDivElement, Element> = {
    count,
    getScrollElement: () => frame.current,
    estimateSize: () => HEIGHT,
    overscan: 20,
    observeElementRect,
    observeElementOffset,
    scrollToFn: elementScroll,
    onChange: () => draw((turn) => turn + 1),
  };
  const [virtual] = useState(() => new Virtualizer(options));
  virtual.setOptions(options);
  useEffect(() => virtual._didMount(), [virtual]);
  useEffect(() => virtual._willUpdate());
  const items = scrolls ? virtual.getVirtualItems() : [];
  const last = items.at(-1);
  const end = scrolls && last ? last.index >= count - AHEAD : !scrolls;
  useEffect(() => {
    if (!more) return;
    if (scrolls && end) more();
  }, [end, count, scrolls]);
  const first = items[0];
  if (!scrolls || !first || !last) return { from: 0, to: Math.min(count, VIRTUAL), before: 0, after: 0 };
  return { from: first.index, to: last.index + 1, before: first.start, after: virtual.getTotalSize() - last.end };
}
