// Every page and every call within three keys.

import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { PLACES } from "../places";
import { signOut } from "../state/session";
import { turn } from "../state/theme";

export const palette = signal(false);

interface Deed {
  title: string;
  group: string;
  words: string;
  act: () => void;
}

const CALL = /^(req_)?[0-9A-Za-z_-]{12,80}$/;

export function Palette() {
  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      if (event.key.toLowerCase() === "k" && (event.metaKey || event.ctrlKey)) {
        event.preventDefault();
        palette.value = !palette.value;
      }
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, []);
  return palette.value ? <Open /> : null;
}

function Open() {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [, go] = useLocation();
  const dialog = useRef<HTMLDialogElement>(null);
  const found = useMemo(() => search(text, go), [text]);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  useEffect(() => setAt(0), [text]);
  const close = () => {
    palette.value = false;
  };
  const run = (deed: Deed | undefined) => {
    close();
    deed?.act();
  };
  const keys = (event: KeyboardEvent) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step) setAt((was) => (was + step + found.length) % Math.max(1, found.length));
    else if (event.key === "Enter") run(found[at]);
    else return;
    event.preventDefault();
  };
  return (
    <dialog ref={dialog} class="palette" aria-label="Go to" onClose={close} onMouseDown={(event) => event.target === dialog.current && close()}>
      <input
        role="combobox"
        aria-label="Page, deed or request id"
        aria-expanded="true"
        aria-controls="deeds"
        aria-activedescendant={found[at] ? `deed-${at}` : undefined}
        placeholder="Page, deed or request id"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={keys}
      />
      <div role="listbox" id="deeds" aria-label="Found">
        {found.map((deed, index) => (
          <div
            key={deed.title}
            id={`deed-${index}`}
            role="option"
            aria-selected={index === at}
            onMouseMove={() => setAt(index)}
            onClick={() => run(deed)}
          >
            <span>{deed.title}</span>
            <span class="faint">{deed.group}</span>
          </div>
        ))}
      </div>
    </dialog>
  );
}

function search(text: string, go: (path: string) => void): Deed[] {
  const wanted = text.trim().toLowerCase();
  const deeds: Deed[] = [
    ...PLACES.map((place) => ({
      title: place.title,
      group: place.group || "Page",
      words: place.words,
      act: () => go(place.path),
    })),
    { title: "Change colours", group: "Deed", words: "dark light theme", act: turn },
    { title: "Sign out", group: "Deed", words: "leave log out", act: () => void signOut() },
  ];
  const found = deeds
    .map((deed) => ({ deed, rank: rank(deed, wanted) }))
    .filter(({ rank }) => rank < 3)
    .sort((one, other) => one.rank - other.rank)
    .map(({ deed }) => deed);
  if (CALL.test(text.trim()) && !found.length) {
    const id = text.trim();
    found.push({ title: `Call ${id}`, group: "Request", words: "", act: () => go(`/ui/requests?id=${encodeURIComponent(id)}`) });
  }
  return found;
}

/** 0: the title begins with it; 1: it is in the title; 2: in the words; 3: not at all. */
function rank(deed: Deed, wanted: string): number {
  const title = deed.title.toLowerCase();
  if (title.startsWith(wanted)) return 0;
  if (title.includes(wanted)) return 1;
  return deed.words.includes(wanted) ? 2 : 3;
}
