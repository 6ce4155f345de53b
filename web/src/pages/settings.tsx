// Every setting as it is, what it would be, and where it comes from. They are read when the server starts.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Answering } from "../parts/answering";
import { Badge, Empty, Head, Sheet, Shown } from "../parts/basics";
import { useLoaded } from "../state/loaded";

type Setting = Schemas["SettingShown"];
const SOURCES: Record<Setting["source"], "" | "info" | "good"> = { default: "", environment: "good", "started with": "info" };

const fits = (one: Setting, text: string): boolean => `${one.variable} ${one.text} ${one.value}`.toLowerCase().includes(text);

export function SettingsPage() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/settings")), []);
  const [text, setText] = useState("");
  const [changed, setChanged] = useState(false);
  const wanted = text.trim().toLowerCase();
  return (
    <>
      <Head title="Settings">
        What this server was started with. A setting is changed by its variable or a flag of <code>tokenhub serve</code>; the{" "}
        <a href="/docs/operating#settings">manual</a> has them all.
      </Head>
      <div class="filters">
        <input class="search" type="search" aria-label="Search settings" placeholder="Name or meaning" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <label class="check"><input type="checkbox" checked={changed} onChange={(event) => setChanged(event.currentTarget.checked)} />Only what is not its default</label>
      </div>
      {loaded.value && <Answering of={loaded.value.process} />}
      <Sheet flush>
        <Shown of={loaded}>
          {({ items }) => {
            const rows = items.filter((one) => (!changed || one.source !== "default") && fits(one, wanted));
            return rows.length === 0 ? <Empty title="No such setting"><p>{changed ? "All that fits has its default." : "Try a part of its name."}</p></Empty> : <Rows of={rows} />;
          }}
        </Shown>
      </Sheet>
    </>
  );
}

function Rows({ of }: { of: readonly Setting[] }) {
  return (
    <div class="table-frame" role="region" aria-label="Settings, scrolled" tabIndex={0}>
      <table aria-label="Settings">
        <thead><tr><th scope="col">Setting</th><th scope="col">Now</th><th scope="col">From</th><th scope="col">Default</th></tr></thead>
        <tbody>
          {of.map((one) => (
            <tr key={one.variable}>
              <td class="prose"><code>{one.variable}</code><p class="quiet">{one.text}</p></td>
              <td class="value"><code>{one.value || (one.secret ? "not set" : "–")}</code></td>
              <td><Badge tone={SOURCES[one.source]}>{one.source}</Badge></td>
              <td class="quiet value"><code>{one.default || "–"}</code></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
