// Forms: a label for every field, what is wrong beside it, and what the server says where it says it.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Refused } from "../api/client";
import { Button } from "./basics";

interface FieldProps {
  label: string;
  hint?: ComponentChildren;
  wrong?: string | undefined;
  whole?: boolean;
  children: (id: string, described: string | undefined) => ComponentChildren;
}

export function Field({ label, hint, wrong, whole, children }: FieldProps) {
  const id = useId();
  const about = `${id}-about`;
  return (
    <div class={`field ${whole ? "whole" : ""}`}>
      <label for={id}>{label}</label>
      {children(id, hint || wrong ? about : undefined)}
      {(hint || wrong) && (
        <span id={about} class={wrong ? "wrong" : "hint"}>
          {wrong ?? hint}
        </span>
      )}
    </div>
  );
}

type InputProps = Omit<JSX.InputHTMLAttributes<HTMLInputElement>, "onInput" | "value" | "label"> & {
  label: string;
  hint?: ComponentChildren;
  wrong?: string | undefined;
  whole?: boolean;
  value: string;
  set: (value: string) => void;
};

export function Input({ label, hint, wrong, whole, value, set, ...rest }: InputProps) {
  return (
    <Field label={label} hint={hint} wrong={wrong} whole={whole ?? false}>
      {(id, about) => (
        <input
          {...rest}
          id={id}
          value={value}
          aria-describedby={about}
          aria-invalid={wrong ? "true" : undefined}
          onInput={(event) => set(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

export function Choice({ label, hint, value, set, of, whole }: {
  label: string;
  hint?: ComponentChildren;
  value: string;
  set: (value: string) => void;
  of: readonly (string | readonly [string, string])[];
  whole?: boolean;
}) {
  return (
    <Field label={label} hint={hint} whole={whole ?? false}>
      {(id, about) => (
        <select id={id} value={value} aria-describedby={about} onChange={(event) => set(event.currentTarget.value)}>
          {of.map((one) => {
            const [name, title] = typeof one === "string" ? [one, one] : one;
            return (
              <option key={name} value={name}>
                {title}
              </option>
            );
          })}
        </select>
      )}
    </Field>
  );
}

export function Check({ label, value, set }: { label: string; value: boolean; set: (value: boolean) => void }) {
  return (
    <label class="check">
      <input type="checkbox" checked={value} onChange={(event) => set(event.currentTarget.checked)} />
      {label}
    </label>
  );
}

/** A dialog over the page; Escape and the button close it. */
export function Dialog({ title, close, children, kind = "" }: {
  title: string;
  close: () => void;
  children: ComponentChildren;
  kind?: "" | "drawer";
}) {
  const at = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    at.current?.showModal();
  }, []);
  const outside = (event: MouseEvent) => {
    if (event.target === at.current) close();
  };
  return (
    <dialog ref={at} class={kind} aria-labelledby={id} onClose={close} onMouseDown={outside}>
      {kind === "drawer" ? (
        <>
          <header>
            <h2 id={id}>{title}</h2>
            <Button kind="plain" act={close} aria-label="Close">✕</Button>
          </header>
          <div class="body">{children}</div>
        </>
      ) : (
        <div class="body">
          <h2 id={id}>{title}</h2>
          {children}
        </div>
      )}
    </dialog>
  );
}

/** A form in a dialog. What the server refuses is said at the field it names, else above the buttons. */
export function Asking({ title, close, save, verb = "Save", children, danger }: {
  title: string;
  close: () => void;
  save: () => Promise<unknown>;
  verb?: string;
  danger?: boolean;
  children: ComponentChildren | ((wrong: (param: string) => string | undefined) => ComponentChildren);
}) {
  const [refused, setRefused] = useState<Refused>();
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setRefused(undefined);
    try {
      await save();
      close();
    } catch (error) {
      setRefused(error instanceof Refused ? error : new Refused(String(error), 0, "", undefined));
    } finally {
      setBusy(false);
    }
  };
  const wrong = (param: string) => (refused?.param === param ? refused.message : undefined);
  return (
    <Dialog title={title} close={close}>
      <form class="stack" onSubmit={submit} noValidate>
        {typeof children === "function" ? children(wrong) : children}
        {refused && <p class="bad" role="alert">{refused.message}</p>}
        <div class="buttons">
          <button type="submit" class={`button ${danger ? "danger" : "main"}`} disabled={busy}>{verb}</button>
          <Button kind="plain" act={close}>Cancel</Button>
        </div>
      </form>
    </Dialog>
  );
}

/** A number of a text field: undefined where it is empty. */
export const numeric = (text: string): number | undefined => (text.trim() === "" ? undefined : Number(text));
/** Names of a text field, one a line or parted by commas. */
export const names = (text: string): string[] => text.split(/[\n,]/).map((one) => one.trim()).filter(Boolean);
