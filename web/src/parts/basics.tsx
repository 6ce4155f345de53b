// The small parts that every page is made of.

import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useState } from "preact/hooks";
import type { Refused } from "../api/client";
import type { Loaded } from "../state/loaded";
import { absolute, ago } from "./format";

type Tone = "good" | "warn" | "bad" | "info" | "";

export function Badge({ tone = "", children }: { tone?: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

interface ButtonProps extends Omit<JSX.ButtonHTMLAttributes<HTMLButtonElement>, "onClick"> {
  kind?: "main" | "danger" | "plain" | "";
  small?: boolean;
  /** What it does; while that takes, it can not be pressed again. */
  act?: () => unknown;
}

export function Button({ kind = "", small, act, children, disabled, ...rest }: ButtonProps) {
  const [busy, setBusy] = useState(false);
  const press = async () => {
    setBusy(true);
    try {
      await act?.();
    } catch (error) {
      toast((error as Error).message, true);
    } finally {
      setBusy(false);
    }
  };
  return (
    <button
      type="button"
      {...rest}
      class={`button ${kind} ${small ? "small" : ""}`}
      disabled={busy || disabled}
      {...(act && { onClick: press })}
    >
      {children}
    </button>
  );
}

// --- times

const clock = signal(Date.now() / 1000);
setInterval(() => {
  if (!document.hidden) clock.value = Date.now() / 1000;
}, 5000);

/** A time as how long ago, with the exact one behind it. */
export function Time({ at }: { at: number | null | undefined }) {
  if (at == null) return <span class="faint">never</span>;
  return (
    <time dateTime={new Date(at * 1000).toISOString()} title={absolute(at)}>
      {ago(at, clock.value)}
    </time>
  );
}

// --- what is said in passing

interface Said {
  id: number;
  text: string;
  bad: boolean;
}
const toasts = signal<readonly Said[]>([]);
let spoken = 0;

export function toast(text: string, bad = false): void {
  const id = ++spoken;
  toasts.value = [...toasts.value, { id, text, bad }];
  setTimeout(() => {
    toasts.value = toasts.value.filter((one) => one.id !== id);
  }, bad ? 9000 : 4000);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((one) => (
        <div key={one.id} class={`toast ${one.bad ? "bad" : ""}`}>
          {one.text}
        </div>
      ))}
    </div>
  );
}

// --- states of a page

export function Problem({ error, again }: { error: Refused; again?: () => void }) {
  return (
    <div class="note bad" role="alert">
      <p>{error.message}</p>
      {again && (
        <p>
          <Button small act={again}>Try again</Button>
        </p>
      )}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="title">{title}</p>
      {children}
    </div>
  );
}

/** What was loaded, or why not yet. */
export function Shown<T>({ of, children }: { of: Loaded<T>; children: (value: T) => ComponentChildren }) {
  if (of.value !== undefined) {
    return (
      <>
        {of.error && <Problem error={of.error} again={of.again} />}
        {children(of.value)}
      </>
    );
  }
  if (of.error) return <Problem error={of.error} again={of.again} />;
  return <p class="empty" role="status">Loading…</p>;
}

export function Head({ title, children, more }: { title: string; children?: ComponentChildren; more?: ComponentChildren }) {
  useEffect(() => {
    document.title = `${title} · TokenHub`;
  }, [title]);
  return (
    <header class="page-head">
      <div>
        <h1>{title}</h1>
        {children && <p>{children}</p>}
      </div>
      {more && <div class="buttons">{more}</div>}
    </header>
  );
}

export function Sheet({ title, more, children, flush }: {
  title?: ComponentChildren;
  more?: ComponentChildren;
  children: ComponentChildren;
  flush?: boolean;
}) {
  const id = useId();
  return (
    <section class="sheet" {...(title ? { "aria-labelledby": id } : {})}>
      {(title || more) && (
        <header>
          <h2 id={id}>{title}</h2>
          {more && <div class="buttons">{more}</div>}
        </header>
      )}
      {flush ? children : <div class="inner">{children}</div>}
    </section>
  );
}

export function Figures({ of }: { of: readonly (readonly [string, ComponentChildren, ComponentChildren?])[] }) {
  return (
    <dl class="figures">
      {of.map(([name, value, more]) => (
        <div class="figure" key={name}>
          <dt>{name}</dt>
          <dd>
            {value} {more && <small>{more}</small>}
          </dd>
        </div>
      ))}
    </dl>
  );
}

export function Facts({ of }: { of: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {of.map(([name, value]) => (
        <>
          <dt key={name}>{name}</dt>
          <dd>{value === "" || value == null ? <span class="faint">–</span> : value}</dd>
        </>
      ))}
    </dl>
  );
}

export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return (
    <div class="copy">
      <pre>{text}</pre>
      <Button small act={copy} aria-label={label}>{done ? "Copied" : "Copy"}</Button>
    </div>
  );
}

export function Bar({ part, held = 0, tone = "" }: { part: number; held?: number; tone?: Tone }) {
  const first = Math.min(1, Math.max(0, part));
  const second = Math.min(1, Math.max(0, part + held));
  return (
    <div class={`bar ${tone}`} role="img" aria-label={`${Math.round(first * 100)} percent`}>
      {held > 0 && <i class="held" style={{ width: `${second * 100}%` }} />}
      <i style={{ width: `${first * 100}%` }} />
    </div>
  );
}

export function Tabs<T extends string>({ of, at, go, label }: {
  of: readonly (readonly [T, string])[];
  at: T;
  go: (to: T) => void;
  label: string;
}) {
  const move = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!step) return;
    const index = of.findIndex(([name]) => name === at);
    const to = of[(index + step + of.length) % of.length];
    if (to) go(to[0]);
    const list = event.currentTarget as HTMLElement;
    (list.children[(index + step + of.length) % of.length] as HTMLElement).focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label={label} onKeyDown={move}>
      {of.map(([name, title]) => (
        <button
          key={name}
          type="button"
          role="tab"
          aria-selected={name === at}
          tabIndex={name === at ? 0 : -1}
          onClick={() => go(name)}
        >
          {title}
        </button>
      ))}
    </div>
  );
}
