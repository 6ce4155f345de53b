// The frame around every page: who is there, where one can go, and what is going on.

import { Suspense } from "preact/compat";
import { useEffect, useState } from "preact/hooks";
import { Link, Route, Switch, useLocation } from "wouter-preact";
import { Badge, Button, Empty, Toasts } from "./parts/basics";
import { Input } from "./parts/forms";
import { Palette, palette } from "./parts/palette";
import { PLACES } from "./places";
import { leave, listen, missed, stream } from "./state/events";
import { signIn, signOut, signedIn, who, why } from "./state/session";
import { dark, turn } from "./state/theme";

const GROUPS = [...new Set(PLACES.map((place) => place.group))];

export function App() {
  const known = who.value;
  useEffect(() => {
    if (!known) return;
    listen();
    return leave;
  }, [known?.actor]);
  if (known === undefined) return <p class="gate" role="status">Connecting…</p>;
  return (
    <>
      {known ? <Shell /> : <Gate />}
      <Toasts />
    </>
  );
}

function Gate() {
  const [user, setUser] = useState("");
  const [secret, setSecret] = useState("");
  const [refused, setRefused] = useState("");
  const submit = async (event: Event) => {
    event.preventDefault();
    try {
      await signIn(user.trim(), secret);
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  useEffect(() => {
    document.title = "Sign in · TokenHub";
  }, []);
  return (
    <main class="gate">
      <form class="sheet" id="login" onSubmit={submit}>
        <h1>TokenHub</h1>
        {(refused || why.value) && <p role="alert" id="refused" class="note warn">{refused || why.value}</p>}
        <Input label="User" value={user} set={setUser} autocomplete="username" autocapitalize="none" spellcheck={false} name="user" />
        <Input label="Password, or an admin token without a user" type="password" value={secret} set={setSecret} autocomplete="current-password" required name="secret" />
        <button class="button main" type="submit">Sign in</button>
        <p class="quiet">
          No user yet? <code>tokenhub admin login</code> prints a link that signs in.
        </p>
      </form>
    </main>
  );
}

function Shell() {
  const [open, setOpen] = useState(false);
  const [path] = useLocation();
  useEffect(() => setOpen(false), [path]);
  // The menu of a small screen lies over its button: what is beside it, and Escape, close it.
  useEffect(() => {
    if (!open) return;
    const close = (event: Event) => {
      if (event instanceof KeyboardEvent ? event.key === "Escape" : !(event.target as Element).closest("nav.side")) setOpen(false);
    };
    addEventListener("click", close);
    addEventListener("keydown", close);
    return () => {
      removeEventListener("click", close);
      removeEventListener("keydown", close);
    };
  }, [open]);
  return (
    <div class="shell">
      <a class="hush" href="#page">Skip to the page</a>
      <Side open={open} />
      <div class="content">
        <Top menu={() => setOpen(!open)} />
        <main class="page" id="page" key={path}>
          <Suspense fallback={<p class="empty" role="status">Loading…</p>}>
            <Switch>
              {PLACES.map((place) => (
                <Route key={place.path} path={place.path}>{() => <place.page />}</Route>
              ))}
              <Route>
                <Empty title="There is no such page">
                  <p><Link href="/">Back to the overview</Link></p>
                </Empty>
              </Route>
            </Switch>
          </Suspense>
        </main>
      </div>
      {signedIn.value && <Palette />}
    </div>
  );
}

function Side({ open }: { open: boolean }) {
  const [path] = useLocation();
  return (
    <nav class={`side ${open ? "open" : ""}`} aria-label="Pages">
      <Link href="/" class="brand">
        <svg width="20" height="20" viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="1.8" aria-hidden="true">
          <circle cx="10" cy="10" r="3" />
          <path d="M10 1v6M10 13v6M1 10h6M13 10h6" />
        </svg>
        TokenHub
      </Link>
      {GROUPS.map((group) => (
        <div key={group}>
          {group && <h2>{group}</h2>}
          {PLACES.filter((place) => place.group === group).map((place) => (
            <Link key={place.path} href={place.path} class="item" aria-current={path === place.path ? "page" : undefined}>
              {place.title}
            </Link>
          ))}
        </div>
      ))}
      <footer>
        <a href="/docs">Manual</a>
        <span>{who.value?.actor} · {who.value?.role}</span>
        <Button small kind="plain" act={signOut} id="leave">Sign out</Button>
      </footer>
    </nav>
  );
}

function Top({ menu }: { menu: () => void }) {
  return (
    <div class="top">
      <span class="menu"><Button kind="plain" act={menu} aria-label="Menu">☰</Button></span>
      <span id="state" role="status">
        <Badge tone={stream.value === "live" ? "good" : "warn"}>
          {stream.value}
          {missed.value > 0 && `, ${missed.value} events missed`}
        </Badge>
      </span>
      <span class="spring" />
      <Button small act={() => { palette.value = true; }}>
        Go to… <kbd>{navigator.platform.startsWith("Mac") ? "⌘" : "Ctrl"} K</kbd>
      </Button>
      <Button small kind="plain" act={turn} aria-label={dark.value ? "Light colours" : "Dark colours"}>
        {dark.value ? "☀" : "☾"}
      </Button>
    </div>
  );
}
