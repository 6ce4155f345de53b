// A plan: who could serve, by what score, and who could not.

import type { Schemas } from "../api/client";
import { Badge } from "./basics";
import { millis, money, words } from "./format";
import { ink } from "./inks";

type Candidate = Schemas["CandidateShown"];
type Terms = Schemas["Terms"];

const TERMS = ["cost", "latency", "failure", "weight", "loss"] as const;

/** The candidates in order, each with what its score is made of. Lower is better. */
export function Candidates({ of, weights }: { of: readonly Candidate[]; weights?: Terms | undefined }) {
  if (!of.length) return <p class="quiet">There was none.</p>;
  const most = Math.max(...of.map((one) => TERMS.reduce((sum, term) => sum + Math.abs(one.terms[term] ?? 0), 0)), 1e-9);
  return (
    <div class="table-frame" role="region" aria-label="Candidates" tabIndex={0}>
      <table aria-label="Candidates">
        <thead>
          <tr>
            <th scope="col">Candidate</th>
            <th scope="col" class="num">Score</th>
            <th scope="col">Made of</th>
            <th scope="col" class="num">Expected cost</th>
            <th scope="col" class="num">Expected time</th>
          </tr>
        </thead>
        <tbody>
          {of.map((one) => (
            <tr key={`${one.model} ${one.provider}`}>
              <td>
                <strong>{one.model}</strong> <span class="quiet">@ {one.provider}</span>{" "}
                {one.served && <Badge tone="good">served</Badge>} {one.pinned && <Badge>asked for</Badge>}{" "}
                {one.losses.length > 0 && <Badge tone="warn">{`loses ${one.losses.join(", ")}`}</Badge>}
              </td>
              <td class="num">{one.score.toFixed(3)}</td>
              <td><Made of={one} most={most} weights={weights} /></td>
              <td class="num">{money(one.estimated_cost_usd)}</td>
              <td class="num">{millis(one.expected.latency_ms || one.facts.latency_ms)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Made({ of, most, weights }: { of: Candidate; most: number; weights?: Terms | undefined }) {
  const parts = TERMS.map((term, index) => ({ term, size: Math.abs(of.terms[term] ?? 0), colour: ink(index) })).filter((part) => part.size > 0);
  const label = parts.map((part) => `${part.term} ${part.size.toFixed(3)}${weights ? ` (weight ${weights[part.term] ?? 0})` : ""}`).join(", ");
  return (
    <svg width="140" height="12" role="img" aria-label={label}>
      <title>{label}</title>
      {parts.map((part, index) => {
        const before = parts.slice(0, index).reduce((sum, one) => sum + one.size, 0);
        return <rect key={part.term} x={(before / most) * 140} width={Math.max((part.size / most) * 140, 1)} y="1" height="10" fill={part.colour} />;
      })}
    </svg>
  );
}

export function Exclusions({ of }: { of: readonly Schemas["Exclusion"][] }) {
  if (!of.length) return null;
  return (
    <>
      <h3>Left out</h3>
      <ul class="stack">
        {of.map((one) => (
          <li key={one.reason}>
            <details>
              <summary>
                {one.count} × {words(one.reason)}
              </summary>
              <ul>
                {one.models.map((model) => (
                  <li key={`${model.model} ${model.provider}`} class="quiet">
                    {model.model} @ {model.provider} {model.detail && `· ${model.detail}`}
                  </li>
                ))}
              </ul>
            </details>
          </li>
        ))}
      </ul>
    </>
  );
}
