// What is opened on its way, by which certificates, and what happens to each host's calls.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Facts, Head, Sheet, Shown, Time, toast } from "../parts/basics";
import { Asking, Choice, Input } from "../parts/forms";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

export function InterceptionPage() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/ca")), [], { follow: true });
  const [adding, setAdding] = useState(false);
  const [rotating, setRotating] = useState(false);
  const remove = async (host: string) => {
    await done(api.DELETE("/admin/v1/ca/hosts/{host}", { params: { path: { host } } }));
    loaded.again();
  };
  const rotate = async () => {
    await done(api.POST("/admin/v1/ca/rotate"));
    toast("There is a new root. Programs that are started from now on trust it.");
    loaded.again();
  };
  return (
    <>
      <Head title="Interception" more={may("admin") && (
        <>
          <Button act={() => setRotating(true)}>Make a new root</Button>
          <Button kind="main" act={() => setAdding(true)}>Add a host</Button>
        </>
      )}>
        Connections to these hosts are opened; every other one passes unopened.
      </Head>
      <Shown of={loaded}>
        {(ca) => (
          <>
            {ca.alarms.map((one) => <p key={one} class="note warn">{one}</p>)}
            <div class="two">
              <Sheet title="Root certificate">
                <Facts of={[
                  ["Subject", ca.subject],
                  ["SHA-256", <code>{ca.sha256}</code>],
                  ["Valid from", <Time at={ca.not_before} />],
                  ["Valid until", <Time at={ca.not_after} />],
                  ["File", <code>{ca.file}</code>],
                  ["Vouches for", `${ca.permitted.length} names and no other`],
                ]} />
              </Sheet>
              <Sheet title={`Hosts (${ca.hosts.length})`} flush>
                <div class="table-frame tall" role="region" aria-label="Hosts" tabIndex={0}>
                  <table aria-label="Hosts">
                    <tbody>
                      {ca.hosts.map((host) => (
                        <tr key={host}>
                          <td>{host}</td>
                          <td>{added(ca.added, host) && <Badge tone="info">added</Badge>} {(ca.modes as Record<string, string>)[host] && <Badge>{(ca.modes as Record<string, string>)[host]}</Badge>}</td>
                          <td class="num">{added(ca.added, host) && may("admin") && <Button small kind="danger" act={() => remove(host)}>Remove</Button>}</td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                </div>
              </Sheet>
            </div>
          </>
        )}
      </Shown>
      {adding && <Add close={() => setAdding(false)} then={loaded.again} />}
      {rotating && (
        <Asking title="Make a new root?" verb="Make it" danger close={() => setRotating(false)} save={rotate}>
          <p>Programs that trust the old one do not trust the new one: start them anew, or give them the new file.</p>
        </Asking>
      )}
    </>
  );
}

/** Whether a host is one that was added: those stand there with what their calls speak, as host=dialect. */
const added = (hosts: readonly string[], host: string): boolean => hosts.some((one) => one.split("=")[0] === host);

function Add({ close, then }: { close: () => void; then: () => void }) {
  const [host, setHost] = useState("");
  const [dialect, setDialect] = useState<string>("openai_chat");
  const save = async () => {
    await done(api.POST("/admin/v1/ca/hosts", { body: { host: host.trim(), dialect: dialect as Schemas["Dialect"] } }));
    then();
  };
  return (
    <Asking title="Add a host" close={close} save={save} verb="Add">
      {(wrong) => (
        <>
          <Input label="Host" value={host} set={setHost} wrong={wrong("host")} placeholder="llm.example.com" hint="Connections to it are opened from now on." required />
          <Choice label="Its calls speak" value={dialect} set={setDialect} of={["openai_chat", "openai_responses", "anthropic_messages", "gemini", "ollama_chat"]} />
        </>
      )}
    </Asking>
  );
}
