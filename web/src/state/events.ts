// What happens, as it happens. One stream for all pages; it comes back by itself and says what it missed.

import { signal } from "@preact/signals";
import { sessionEnded } from "./session";

/** One call that came to its end; what is empty is left out by the server. */
export interface CallEvent {
  timestamp: number;
  request_id: string;
  model_id?: string;
  provider_id?: string;
  requested_model?: string;
  mode?: string;
  reason?: string;
  outcome: string;
  status: number;
  latency_ms?: number;
  ttft_ms?: number;
  cost_usd?: number;
  input_tokens?: number;
  output_tokens?: number;
  attempts?: number;
  error_class?: string;
  error_msg?: string;
  directive?: string;
  lane?: string;
  program?: string;
  origin_host?: string;
  stream?: boolean;
  simulated?: boolean;
  losses?: string[];
}

export interface Happened {
  /** Opaque: with several processes it names a place at each of them. */
  id: string;
  type: string;
  data: Record<string, unknown>;
}

const KEPT = 5000;
const OTHERS = ["audit", "credential_leak", "health_change", "budget_threshold", "credential_parked",
  "credential_unparked", "apikey_expiring", "apikey_rotation_due", "proof_changed", "ca_expiring", "limits_shared",
  "circuit_change", "loop_blocked", "reloaded", "reload_refused", "webhook_dead", "webhook_lost"] as const;

/** Events that are told of things, in the order of the manual. */
export const TELLING = ["route_success", "route_error", "failover", "escalation", "health_change", "credential_parked",
  "credential_unparked", "credential_leak", "budget_threshold", "apikey_expiring", "apikey_rotation_due", "apikey_change",
  "access_change", "config_change", "vault_change", "audit", "proof_changed", "ca_expiring", "limits_shared",
  "circuit_change", "loop_blocked", "reloaded", "reload_refused", "rows_deleted"] as const;

export const calls = signal<readonly CallEvent[]>([]);
/** All but calls, newest first. */
export const others = signal<readonly Happened[]>([]);
export const stream = signal<"connecting" | "live" | "reconnecting">("connecting");
export const missed = signal(0);
/** Counts up with every change that somebody makes: lists that show configuration load again. */
export const changes = signal(0);

let source: EventSource | undefined;
let waiting: CallEvent[] = [];
let drawing = false;

// A burst is drawn once a frame, not once an event.
function gather(event: CallEvent): void {
  waiting.push(event);
  if (drawing) return;
  drawing = true;
  const draw = () => {
    drawing = false;
    calls.value = [...waiting.reverse(), ...calls.value].slice(0, KEPT);
    waiting = [];
  };
  // A page that nobody looks at gets no frames.
  if (document.hidden) setTimeout(draw, 250);
  else requestAnimationFrame(draw);
}

const parsed = <T>(message: Event): T => JSON.parse((message as MessageEvent<string>).data) as T;

export function listen(): void {
  leave();
  source = new EventSource("/admin/v1/events?replay=true");
  source.onopen = () => {
    stream.value = "live";
  };
  source.onerror = () => {
    // A refusal ends the stream for good; everything else is tried again by the browser.
    if (source?.readyState === EventSource.CLOSED) sessionEnded();
    else stream.value = "reconnecting";
  };
  source.addEventListener("lost", (message) => {
    // After a restart nobody knows how many.
    missed.value += parsed<{ count: number | null }>(message).count ?? 0;
  });
  for (const type of ["route_success", "route_error"]) {
    source.addEventListener(type, (message) => gather(parsed<CallEvent>(message)));
  }
  for (const type of OTHERS) {
    source.addEventListener(type, (message) => {
      const id = (message as MessageEvent).lastEventId;
      const data = parsed<Record<string, unknown>>(message);
      others.value = [{ id, type, data }, ...others.value].slice(0, 500);
      if (type === "audit") changes.value += 1;
    });
  }
}

export function leave(): void {
  source?.close();
  source = undefined;
  calls.value = [];
  others.value = [];
  missed.value = 0;
  stream.value = "connecting";
}
