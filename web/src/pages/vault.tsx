// The vault: open, closed, and what is in it.

import { useState } from "preact/hooks";
import { api, done, type Schemas } from "../api/client";
import { Badge, Button, Copy, Empty, Facts, Head, Sheet, Shown, toast } from "../parts/basics";
import { Asking, Input } from "../parts/forms";
import { count } from "../parts/format";
import { useLoaded } from "../state/loaded";
import { may } from "../state/session";

type Vault = Schemas["VaultShown"];
type Deed = "init" | "unlock" | "password" | "rotate" | "secret";
const TONES = { unlocked: "good", locked: "warn", uninitialised: "info" } as const;

export function VaultPage() {
  const loaded = useLoaded(() => done(api.GET("/admin/v1/vault")), [], { follow: true, every: 10_000 });
  const [deed, setDeed] = useState<Deed>();
  const [kept, setKept] = useState(0);
  const lock = async () => {
    await done(api.POST("/admin/v1/vault/lock"));
    loaded.again();
  };
  return (
    <>
      <Head title="Vault">Where the keys of providers lie, sealed. Its password is kept nowhere.</Head>
      <Shown of={loaded}>
        {(vault) => (
          <>
            <Sheet title="State" more={<Badge tone={TONES[vault.state]}>{vault.state === "uninitialised" ? "has no password yet" : vault.state}</Badge>}>
              <div class="stack">
                <Facts of={[["Secrets", count(vault.entries)], ["Sealed so far with this key", count(vault.seals)]]} />
                {vault.bad.map((one) => <p key={one.name} class="note bad"><strong>{one.name}</strong>: {one.why}</p>)}
                {may("admin") && (
                  <div class="buttons">
                    {vault.state === "uninitialised" && <Button kind="main" act={() => setDeed("init")}>Give it a password</Button>}
                    {vault.state === "locked" && <Button kind="main" act={() => setDeed("unlock")}>Unlock</Button>}
                    {vault.state === "unlocked" && (
                      <>
                        <Button act={lock}>Lock</Button>
                        <Button act={() => setDeed("password")}>Change the password</Button>
                        <Button act={() => setDeed("rotate")}>Rotate its key</Button>
                      </>
                    )}
                  </div>
                )}
              </div>
            </Sheet>
            {vault.state === "unlocked" && may("admin") && <Secrets kept={kept} add={() => setDeed("secret")} />}
          </>
        )}
      </Shown>
      {deed && <Do deed={deed} close={() => setDeed(undefined)} then={() => { loaded.again(); setKept((was) => was + 1); }} />}
    </>
  );
}

function Do({ deed, close, then }: { deed: Deed; close: () => void; then: () => void }) {
  const [first, setFirst] = useState("");
  const [second, setSecond] = useState("");
  const settled = (vault: Vault) => {
    toast(`The vault is ${vault.state}.`);
    then();
  };
  const admin_password = first;
  const deeds: Record<Deed, { title: string; verb: string; one: string; other?: string; save: () => Promise<unknown> }> = {
    init: { title: "Give the vault a password", verb: "Set", one: "Password", other: "Again", save: async () => {
      if (first !== second) throw new Error("The two are not the same.");
      settled(await done(api.POST("/admin/v1/vault/init", { body: { admin_password } })));
    } },
    unlock: { title: "Unlock the vault", verb: "Unlock", one: "Password", save: async () => settled(await done(api.POST("/admin/v1/vault/unlock", { body: { admin_password } }))) },
    password: { title: "Change the password", verb: "Change", one: "Old password", other: "New password", save: async () => settled(await done(api.POST("/admin/v1/vault/password", { body: { old_password: first, new_password: second } }))) },
    rotate: { title: "Rotate the key", verb: "Rotate", one: "Password", save: async () => settled(await done(api.POST("/admin/v1/vault/rotate", { body: { admin_password } }))) },
    secret: { title: "Keep a secret", verb: "Keep", one: "Value", other: "Name", save: async () => {
      await done(api.PUT("/admin/v1/vault/secrets/{name}", { params: { path: { name: second.trim() } }, body: { value: first } }));
      then();
    } },
  };
  const { title, verb, one, other, save } = deeds[deed];
  return (
    <Asking title={title} verb={verb} close={close} save={save}>
      {deed === "secret" && <Input label="Name" value={second} set={setSecond} required />}
      <Input label={one} type="password" value={first} set={setFirst} autocomplete="off" required />
      {other && deed !== "secret" && <Input label={other} type="password" value={second} set={setSecond} autocomplete="off" required />}
    </Asking>
  );
}

function Secrets({ kept, add }: { kept: number; add: () => void }) {
  // An event may tell of a secret a moment before the list has it: who has kept one asks once more.
  const loaded = useLoaded(() => done(api.GET("/admin/v1/vault/secrets")), [kept], { follow: true });
  const [read, setRead] = useState<Schemas["Secret"]>();
  const show = async (name: string) => setRead(await done(api.GET("/admin/v1/vault/secrets/{name}", { params: { path: { name } } })));
  const remove = async (name: string) => {
    await done(api.DELETE("/admin/v1/vault/secrets/{name}", { params: { path: { name } } }));
    loaded.again();
  };
  return (
    <Sheet title="Secrets of your own" flush more={<Button small act={add}>Keep a secret</Button>}>
      <Shown of={loaded}>
        {({ items }) => items.length === 0 ? <Empty title="None"><p>Providers' keys are in the vault too, and are not shown here.</p></Empty> : (
          <table aria-label="Secrets">
            <tbody>
              {items.map((one) => (
                <tr key={one.name}>
                  <td>{one.name}</td>
                  <td>{read?.name === one.name ? <Copy text={read.value} /> : <Button small act={() => show(one.name)}>Read</Button>}</td>
                  <td class="num"><Button small kind="danger" act={() => remove(one.name)}>Remove</Button></td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Shown>
      <p class="quiet inner" style={{ padding: "10px 14px" }}>Reading one is written to the audit log first.</p>
    </Sheet>
  );
}
