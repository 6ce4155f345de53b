// Who may use these pages: users, tokens of programs, open sessions.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Copy, Empty, Head, Sheet, Shown, Tabs, Time } from "../parts/basics";
import { Asking, Choice, Dialog, Input } from "../parts/forms";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

type Tab = "users" | "tokens" | "sessions";
const ROLES = [["viewer", "viewer: reads"], ["operator", "operator: changes what serves"], ["admin", "admin: everything"]] as const;

export function Access() {
  const [tab, setTab] = useState<Tab>("users");
  return (
    <>
      <Head title="Access">Who may use the admin pages and their API.</Head>
      <Tabs label="Kinds of access" at={tab} go={setTab} of={[["users", "Users"], ["tokens", "Tokens"], ["sessions", "Sessions"]]} />
      {tab === "users" && <Users />}
      {tab === "tokens" && <Tokens />}
      {tab === "sessions" && <Sessions />}
    </>
  );
}

function Users() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/users")), [], { follow: true });
  const [adding, setAdding] = useState(false);
  const [link, setLink] = useState<string>();
  const path = (id: string) => ({ params: { path: { id } } });
  const act = async (asking: Promise<unknown>) => {
    await asking;
    loaded.again();
  };
  const makeLink = async () => {
    const made = await done(api.POST("/admin/v1/login-links"));
    setLink(`${location.origin}/login#${made.ticket}`);
  };
  return (
    <Sheet title="Users" flush more={may("admin") && <><Button small act={makeLink}>Make a login link</Button><Button small kind="main" act={() => setAdding(true)}>Add a user</Button></>}>
      <Shown of={loaded}>
        {({ items }) => items.length === 0 ? <Empty title="No user yet"><p>Until there is one, the admin token and login links let in.</p></Empty> : (
          <div class="table-frame" role="region" aria-label="Users, scrolled" tabIndex={0}>
            <table aria-label="Users">
              <thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">State</th><th scope="col">Last here</th><th scope="col" /></tr></thead>
              <tbody>
                {items.map((one) => (
                  <tr key={one.id}>
                    <td><strong>{one.name}</strong></td>
                    <td>{may("admin") ? (
                      <select aria-label={`Role of ${one.name}`} value={one.role} onChange={(event) => void act(done(api.PATCH("/admin/v1/users/{id}", { ...path(one.id), body: { role: event.currentTarget.value as Schemas["Role"] } })))}>
                        {ROLES.map(([role]) => <option key={role}>{role}</option>)}
                      </select>
                    ) : one.role}</td>
                    <td><Badge tone={one.enabled ? "good" : ""}>{one.enabled ? "on" : "off"}</Badge></td>
                    <td><Time at={one.last_login_at} /></td>
                    <td>
                      {may("admin") && (
                        <div class="buttons">
                          <Button small act={() => act(done(api.PATCH("/admin/v1/users/{id}", { ...path(one.id), body: { enabled: !one.enabled } })))}>{one.enabled ? "Switch off" : "Switch on"}</Button>
                          <Button small act={() => act(done(api.POST("/admin/v1/users/{id}/unlock", path(one.id))))}>Let try again</Button>
                          <Button small kind="danger" act={() => act(done(api.DELETE("/admin/v1/users/{id}", path(one.id))))}>Remove</Button>
                        </div>
                      )}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Shown>
      {adding && <AddUser close={() => setAdding(false)} then={loaded.again} />}
      {link && <Dialog title="A login link" close={() => setLink(undefined)}><p>It signs one browser in, once, with your own rights.</p><Copy text={link} /></Dialog>}
    </Sheet>
  );
}

function AddUser({ close, then }: { close: () => void; then: () => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [password, setPassword] = useState("");
  const save = async () => {
    await done(api.POST("/admin/v1/users", { body: { name: name.trim(), role: role as Schemas["Role"], password } }));
    then();
  };
  return (
    <Asking title="Add a user" close={close} save={save} verb="Add">
      {(wrong) => (
        <>
          <Input label="Name" value={name} set={setName} wrong={wrong("name")} autocomplete="username" required />
          <Choice label="Role" value={role} set={setRole} of={ROLES} />
          <Input label="Password" type="password" value={password} set={setPassword} wrong={wrong("password")} autocomplete="new-password" required />
        </>
      )}
    </Asking>
  );
}

function Tokens() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/tokens")), [], { follow: true });
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState<Schemas["TokenMade"]>();
  const revoke = async (id: string) => {
    await done(api.DELETE("/admin/v1/tokens/{id}", { params: { path: { id } } }));
    loaded.again();
  };
  return (
    <Sheet title="Tokens" flush more={may("admin") && <Button small kind="main" act={() => setAdding(true)}>Make a token</Button>}>
      <Shown of={loaded}>
        {({ items }) => items.length === 0 ? <Empty title="No token yet"><p>Programs that use the admin API get one each, with a role of its own.</p></Empty> : (
          <div class="table-frame" role="region" aria-label="Tokens, scrolled" tabIndex={0}>
            <table aria-label="Tokens">
              <thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">Begins with</th><th scope="col">Made by</th><th scope="col">Expires</th><th scope="col" /></tr></thead>
              <tbody>
                {items.map((one) => (
                  <tr key={one.id}>
                    <td><strong>{one.name}</strong></td><td>{one.role}</td><td><code>{one.prefix}…</code></td><td>{one.created_by}</td><td><Time at={one.expires_at} /></td>
                    <td class="num">{may("admin") && <Button small kind="danger" act={() => revoke(one.id)}>Revoke</Button>}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Shown>
      {adding && <AddToken close={() => setAdding(false)} then={(token) => { setMade(token); loaded.again(); }} />}
      {made && <Dialog title={`The token of ${made.name}`} close={() => setMade(undefined)}><p class="note warn">It is shown now and never again.</p><Copy text={made.token} /></Dialog>}
    </Sheet>
  );
}

function AddToken({ close, then }: { close: () => void; then: (made: Schemas["TokenMade"]) => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [days, setDays] = useState("90");
  const save = async () => then(await done(api.POST("/admin/v1/tokens", { body: { name: name.trim(), role: role as Schemas["Role"], expires_in_secs: Math.round(Number(days) * 86_400) } })));
  return (
    <Asking title="Make a token" close={close} save={save} verb="Make">
      {(wrong) => (
        <>
          <Input label="Name" value={name} set={setName} wrong={wrong("name")} required />
          <Choice label="Role" value={role} set={setRole} of={ROLES} />
          <Input label="Days until it expires" type="number" value={days} set={setDays} wrong={wrong("expires_in_secs")} />
        </>
      )}
    </Asking>
  );
}

function Sessions() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/sessions")), [], { follow: true });
  const end = async (id: string) => {
    await done(api.DELETE("/admin/v1/sessions/{id}", { params: { path: { id } } }));
    loaded.again();
  };
  return (
    <Sheet title="Open sessions" flush>
      <Shown of={loaded}>
        {({ items }) => (
          <div class="table-frame" role="region" aria-label="Sessions, scrolled" tabIndex={0}>
            <table aria-label="Sessions">
              <thead><tr><th scope="col">Who</th><th scope="col">Role</th><th scope="col">From</th><th scope="col">With</th><th scope="col">Last used</th><th scope="col">Ends</th><th scope="col" /></tr></thead>
              <tbody>
                {items.map((one) => (
                  <tr key={one.id}>
                    <td>{one.actor}</td><td>{one.role}</td><td>{one.source}</td><td>{one.program}</td><td><Time at={one.used_at} /></td><td><Time at={one.expires_at} /></td>
                    <td class="num"><Button small kind="danger" act={() => end(one.id)}>End</Button></td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Shown>
    </Sheet>
  );
}
