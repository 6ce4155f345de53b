// What a page shows from the server: loaded once, again when somebody changes something, and on demand.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { Refused } from "../api/client";
import { changes } from "./events";

export interface Loaded<T> {
  value: T | undefined;
  error: Refused | undefined;
  loading: boolean;
  again: () => void;
}

interface Options {
  /** Milliseconds between loads; not while nobody looks. */
  every?: number;
  /** Load again when anybody changes anything. */
  follow?: boolean;
}

export function useLoaded<T>(load: () => Promise<T>, on: readonly unknown[], options: Options = {}): Loaded<T> {
  const [state, set] = useState<Omit<Loaded<T>, "again">>({ value: undefined, error: undefined, loading: true });
  const turn = useRef(0);
  const again = useCallback(() => {
    const mine = ++turn.current;
    set((was) => ({ ...was, loading: true }));
    load().then(
      (value) => mine === turn.current && set({ value, error: undefined, loading: false }),
      (error: Refused) => mine === turn.current && set((was) => ({ ...was, error, loading: false })),
    );
    // The loader is made anew with every drawing; what it depends on is named by who uses it.
  }, on);
  useEffect(() => {
    again();
    return () => {
      turn.current += 1;
    };
  }, [again]);
  const { every, follow } = options;
  const version = follow ? changes.value : 0;
  const first = useRef(true);
  useEffect(() => {
    if (first.current) first.current = false;
    else again();
  }, [version]);
  useEffect(() => {
    if (!every) return;
    const timer = setInterval(() => document.hidden || again(), every);
    return () => clearInterval(timer);
  }, [again, every]);
  return { ...state, again };
}
