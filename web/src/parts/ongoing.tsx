// The calls that have not come to their end, as the server tells of them every other second.

import { api, done, type Schemas } from "../api/client";
import { useLoaded } from "../state/loaded";
import { Badge, Sheet, Shown } from "./basics";
import { served } from "./calls";
import { count, millis } from "./format";

type Call = Schemas["Ongoing"];
const TONES = { planning: "", waiting: "info", streaming: "good" } as const;
const SHOWN = 12;

export function Ongoing() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/underway")), [], { every: 2000 });
  return (
    <Sheet title="Under way" more={loaded.value && <span class="quiet">{told(loaded.value)}</span>} flush>
      <Shown of={loaded}>
        {({ items }) => (items.length === 0 ? <p class="inner quiet">No call is under way.</p> : <Rows of={items} />)}
      </Shown>
    </Sheet>
  );
}

function told({ calls, processes, unheard, items }: Schemas["CallsUnderway"]): string {
  const shown = Math.min(items.length, SHOWN);
  return [
    calls > shown ? `${count(shown)} of ${count(calls)}, the longest` : calls ? count(calls) : "",
    processes > 1 ? `${processes} processes` : "",
    unheard ? `${unheard} did not answer` : "",
  ].filter(Boolean).join(" · ");
}

function Rows({ of }: { of: readonly Call[] }) {
  return (
    <div class="table-frame rows" role="region" aria-label="Under way, scrolled" tabIndex={0}>
      <table aria-label="Under way">
        <thead>
          <tr>
            <th scope="col">State</th><th scope="col">Program</th><th scope="col">Key</th><th scope="col">Asked for</th><th scope="col">Served by</th>
            <th scope="col" class="num">Tries</th><th scope="col" class="num">For</th><th scope="col" class="num">Tokens</th>
          </tr>
        </thead>
        <tbody>
          {of.slice(0, SHOWN).map((one) => (
            <tr key={one.id}>
              <td><Badge tone={TONES[one.state]}>{one.state}</Badge></td>
              <td>{one.program}</td>
              <td>{one.key_id}</td>
              <td>{one.requested_model}</td>
              <td>{served(one.model_id, one.provider_id)}</td>
              <td class="num">{one.attempts || ""}</td>
              <td class="num">{millis(one.seconds * 1000)}</td>
              <td class="num">{one.stream ? count(one.output_tokens) : ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
