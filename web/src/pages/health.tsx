// How providers are, and what happened to them.

import { api, done, type Schemas } from "../api/client";
import { Badge, Empty, Facts, Head, Sheet, Shown, Time } from "../parts/basics";
import { count, millis, share } from "../parts/format";
import { others } from "../state/events";
import { useLoaded } from "../state/loaded";

const TONES = { healthy: "good", degraded: "warn", half_open: "warn", down: "bad" } as const;

export function Health() {
  const health = useLoaded(() => done(api.GET("/admin/v1/health")), [], { every: 3000 });
  const history = others.value.filter((one) => one.type.startsWith("health") || one.type.startsWith("credential_"));
  return (
    <>
      <Head title="Health">What is learned from real calls: who answers, how fast, who is left alone for a while.</Head>
      <Shown of={health}>
        {({ providers }) =>
          providers.length === 0 ? <Sheet><Empty title="No provider was asked yet"><p>Health is measured on traffic; there is none so far.</p></Empty></Sheet> : (
            <div class="grid">{providers.map((one) => <Provider key={one.provider_id} of={one} />)}</div>
          )
        }
      </Shown>
      <Sheet title="History" flush>
        {history.length === 0 ? <p class="empty">Nothing has changed while this page was open.</p> : (
          <table aria-label="History">
            <tbody>
              {history.map((one) => (
                <tr key={one.id}>
                  <td class="quiet"><Time at={one.data["timestamp"] as number | undefined} /></td>
                  <td><Badge>{one.type.replaceAll("_", " ")}</Badge></td>
                  <td>{Object.entries(one.data).filter(([name]) => name !== "timestamp").map(([name, value]) => `${name.replaceAll("_", " ")} ${String(value)}`).join(" · ")}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Sheet>
    </>
  );
}

function Provider({ of }: { of: Schemas["HealthShown"] }) {
  return (
    <Sheet title={of.provider_id} more={<Badge tone={TONES[of.state]}>{of.state.replace("_", " ")}</Badge>}>
      <Facts of={[
        ["Calls", count(of.calls)],
        ["Fails", share(of.error_rate)],
        ["Takes", millis(of.latency_ms)],
        ["Ejected", of.ejections ? `${of.ejections} times` : "never"],
        ["Asked again", of.cooldown_until ? <Time at={of.cooldown_until} /> : ""],
        ["Parked until", of.parked_until ? <Time at={of.parked_until} /> : ""],
        ["Last success", <Time at={of.last_success_at} />],
        ["Last error", of.last_error ? <>{of.last_error} (<Time at={of.last_error_at} />)</> : "none"],
      ]} />
    </Sheet>
  );
}
