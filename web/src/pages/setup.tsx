// From nothing to the first routed call: what is done, what is next, and what to copy.

import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { api, done } from "../api/client";
import { Badge, Button, Copy, Head, Sheet, Tabs } from "../parts/basics";
import { served } from "../parts/calls";
import { calls } from "../state/events";
import { useLoaded } from "../state/loaded";
import { Register } from "./providers";

type Client = "run" | "shell" | "openai" | "anthropic" | "curl";

function snippet(client: Client): string {
  const here = location.origin;
  switch (client) {
    case "run":
      return "tokenhub run -- python your_program.py";
    case "shell":
      return 'eval "$(tokenhub env)"\npython your_program.py';
    case "openai":
      return `from openai import OpenAI\n\nclient = OpenAI(base_url="${here}/v1", api_key="tokenhub_…")\nanswer = client.chat.completions.create(\n    model="auto", messages=[{"role": "user", "content": "Hello"}]\n)\nprint(answer.choices[0].message.content)`;
    case "anthropic":
      return `from anthropic import Anthropic\n\nclient = Anthropic(base_url="${here}", api_key="tokenhub_…")\nanswer = client.messages.create(\n    model="auto", max_tokens=200, messages=[{"role": "user", "content": "Hello"}]\n)\nprint(answer.content[0].text)`;
    case "curl":
      return `curl ${here}/v1/chat/completions -H "authorization: Bearer tokenhub_…" \\\n  -d '{"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}'`;
  }
}

export function Setup() {
  const vault = useLoaded(() => done(api.GET("/admin/v1/vault")), [], { follow: true, every: 5000 });
  const providers = useLoaded(() => done(api.GET("/admin/v1/providers")), [], { follow: true, every: 5000 });
  const keys = useLoaded(() => done(api.GET("/admin/v1/apikeys")), [], { follow: true });
  const [client, setClient] = useState<Client>("run");
  const [adding, setAdding] = useState(false);
  const count = providers.value?.items.length ?? 0;
  const arrived = calls.value.find((one) => one.outcome === "ok");
  return (
    <>
      <Head title="Set up a client">Four steps; the last one turns green by itself when the first call comes through.</Head>
      <Step n={1} title="Open the vault" good={vault.value?.state === "unlocked"} said={vault.value?.state === "unlocked" ? "It is open: keys of providers can be kept in it." : "Keys of providers are kept sealed under a password."}>
        <Link class="button" href="/ui/vault">To the vault</Link>
      </Step>
      <Step n={2} title="Register a provider" good={count > 0} said={count ? `${count} registered.` : "Programs with a key of their own work without; with one TokenHub can choose."}>
        <Button act={() => setAdding(true)}>Register a provider</Button>
        <Link class="button" href="/ui/providers">All providers</Link>
      </Step>
      <Step n={3} title="Make a key for the program" good={(keys.value?.total ?? 0) > 0} said="It tells programs apart and bounds what each may spend. On this machine one works without it too, unless that is switched off.">
        <Link class="button" href="/ui/keys">To the keys</Link>
      </Step>
      <Step n={4} title="Send the first call" good={arrived !== undefined} said={arrived ? `It came: ${arrived.program || "a program"} asked for ${arrived.requested_model || "any model"} and was served by ${served(arrived.model_id, arrived.provider_id)}.` : "Waiting for it. Nothing in your program has to change."}>
        <div class="stack wide">
          <Tabs label="Client" at={client} go={setClient} of={[["run", "tokenhub run"], ["shell", "This shell"], ["openai", "OpenAI SDK"], ["anthropic", "Anthropic SDK"], ["curl", "curl"]]} />
          <Copy text={snippet(client)} />
          {arrived && <p><Link href="/ui/live">See it live</Link></p>}
        </div>
      </Step>
      {adding && <Register close={() => setAdding(false)} then={providers.again} />}
    </>
  );
}

function Step({ n, title, good, said, children }: { n: number; title: string; good: boolean; said: string; children: preact.ComponentChildren }) {
  return (
    <Sheet title={`${n}. ${title}`} more={<Badge tone={good ? "good" : ""}>{good ? "done" : "to do"}</Badge>}>
      <div class="stack">
        <p class="quiet">{said}</p>
        <div class="buttons">{children}</div>
      </div>
    </Sheet>
  );
}
