// What Thompson sampling believes of each model: the posterior of its mean reward, as a density.

import { useMemo, useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { api, done, type Schemas } from "../api/client";
import { Answering } from "../parts/answering";
import { Badge, Bar, Empty, Head, Sheet, Shown, Time } from "../parts/basics";
import { Chart } from "../parts/chart";
import { count, share } from "../parts/format";
import { ink } from "../parts/inks";
import { useLoaded } from "../state/loaded";

type Arm = Schemas["Posterior"];
const CURVES = 8;
const POINTS = 240;

/** ln B(a, b), by Lanczos' approximation of the gamma function (g = 7, n = 9). */
function logBeta(a: number, b: number): number {
  return logGamma(a) + logGamma(b) - logGamma(a + b);
}

const LANCZOS: readonly number[] = [0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];

function logGamma(x: number): number {
  const z = x - 1;
  const sum = LANCZOS.reduce((total, term, index) => total + (index ? term / (z + index) : term), 0);
  const t = z + 7.5;
  return 0.5 * Math.log(2 * Math.PI) + (z + 0.5) * Math.log(t) - t + Math.log(sum);
}

/** The density of Beta(alpha, beta) at each place; both are at least 1. */
function density({ alpha, beta }: Arm, at: readonly number[]): number[] {
  const whole = logBeta(alpha, beta);
  return at.map((x) => Math.exp((alpha - 1) * Math.log(x) + (beta - 1) * Math.log1p(-x) - whole));
}

const mean = (one: Arm): number => one.alpha / (one.alpha + one.beta);
const named = (one: Arm): string => `${one.model_id} @ ${one.provider_id}`;

export function Exploring() {
  const [context, setContext] = useState("");
  const loaded = useLoaded(() => done(api.GET("/admin/v1/posteriors", { params: { query: { context } } })), [context], { every: 5000 });
  const policy = useLoaded(() => done(api.GET("/admin/v1/routing-config")), [], { follow: true });
  const on = policy.value?.effective.explore;
  return (
    <>
      <Head title="Exploring" more={on && <Badge tone={on === "off" ? "" : "good"}>{on === "off" ? "off: the best estimate serves" : `on: ${on}`}</Badge>}>
        What is believed of each model's mean reward. A narrow curve is much experience; one far to the right is asked first.
        It is learned while exploring is off, too; the <Link href="/ui/policy">policy</Link> switches it.
      </Head>
      <Shown of={loaded}>
        {({ items, contexts, process }) => (
          <>
            <Answering of={process} />
            <div class="filters">
              <select aria-label="Kind of call" value={context} onChange={(event) => setContext(event.currentTarget.value)}>
                <option value="">All kinds of calls</option>
                {contexts.map((one) => <option key={one}>{one}</option>)}
              </select>
            </div>
            {items.length === 0 ? (
              <Sheet><Empty title="Nothing is learned yet"><p>Each attempt gives its model a reward. After the first calls their curves are here.</p></Empty></Sheet>
            ) : <Believed of={items} />}
          </>
        )}
      </Shown>
    </>
  );
}

function Believed({ of }: { of: readonly Arm[] }) {
  const shown = of.slice(0, CURVES);
  const at = useMemo(() => Array.from({ length: POINTS }, (_, index) => (index + 0.5) / POINTS), []);
  const curves = useMemo(() => shown.map((one, index) => ({ name: named(one), values: density(one, at), colour: ink(index), filled: true })), [of]);
  return (
    <>
      <Sheet title="Densities" more={of.length > CURVES && <span class="quiet">the best {CURVES} of {of.length}</span>}>
        <Chart label={`Densities of mean rewards: ${shown.map((one) => `${named(one)} about ${mean(one).toFixed(2)}`).join(", ")}`} at={at} curves={curves} show={(value) => value.toFixed(value < 10 ? 1 : 0)} time={false} height={280} />
      </Sheet>
      <Sheet title="Arms" flush>
        <div class="table-frame" role="region" aria-label="Arms, scrolled" tabIndex={0}>
          <table aria-label="Arms">
            <thead><tr><th scope="col">Model</th><th scope="col" class="num">Mean reward</th><th scope="col" class="num">Calls that count</th><th scope="col">First</th><th scope="col">Last reward</th></tr></thead>
            <tbody>
              {of.map((one) => (
                <tr key={named(one)}>
                  <td><strong>{named(one)}</strong></td>
                  <td class="num">{mean(one).toFixed(3)}</td>
                  <td class="num">{count(Math.round(one.alpha + one.beta - 2))}</td>
                  <td><div class="side-by-side"><Bar part={one.first} /><span class="quiet">{share(one.first)}</span></div></td>
                  <td><Time at={one.at} /></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </Sheet>
    </>
  );
}
