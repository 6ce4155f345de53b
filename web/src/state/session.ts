// Who is signed in. The session is a cookie that no script can read; what is kept here is what the server says of it.

import { computed, signal } from "@preact/signals";
import { api, done, showing, whenLost, type Refused, type Schemas } from "../api/client";

export type Role = Schemas["Role"];

export interface Known {
  actor: string;
  role: Role;
}

/** undefined: not asked yet; null: nobody. */
export const who = signal<Known | null | undefined>(undefined);
/** Why there is nobody, where that needs saying. */
export const why = signal("");

const RANKS: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

/** Whether who is signed in may do what asks for this role. */
export const may = (role: Role): boolean => who.value != null && RANKS[who.value.role] >= RANKS[role];
export const signedIn = computed(() => who.value != null);

function enter(opened: { actor: string; role: Role; csrf: string | null }): void {
  showing(opened.csrf ?? "");
  why.value = "";
  who.value = { actor: opened.actor, role: opened.role };
}

function lose(reason: string): void {
  showing("");
  why.value = reason;
  who.value = null;
}

// Who signs out hears that, and not that the session has ended, which the open stream notices at the same time.
let leaving = false;

export function sessionEnded(): void {
  if (who.value && !leaving) lose("The session has ended.");
}

whenLost(sessionEnded);

export async function signIn(user: string, secret: string): Promise<void> {
  if (user) return enter(await done(api.POST("/admin/v1/login", { body: { user, password: secret } })));
  const headers = { authorization: `Bearer ${secret}` };
  enter(await done(api.POST("/admin/v1/session", { headers })));
}

export async function signOut(): Promise<void> {
  leaving = true;
  try {
    await done(api.DELETE("/admin/v1/session"));
  } catch (error) {
    // A session that is gone already is what was asked for; any other one is still open, and that is said.
    if ((error as Refused).status !== 401) throw error;
  } finally {
    leaving = false;
  }
  lose("Signed out.");
}

/** Find out who is there: by the link that was opened, or by the session of before. */
export async function begin(): Promise<void> {
  // A fragment never reaches a server or its log; the ticket in it is taken off the address and spent.
  const ticket = location.pathname === "/login" ? location.hash.slice(1) : "";
  if (location.pathname === "/login") history.replaceState(null, "", "/");
  if (ticket) {
    try {
      return enter(await done(api.POST("/admin/v1/login", { body: { ticket } })));
    } catch (error) {
      why.value = (error as Error).message;
    }
  }
  try {
    enter(await done(api.GET("/admin/v1/session")));
  } catch (error) {
    lose(ticket ? why.value : (error as { status?: number }).status === 401 ? "" : (error as Error).message);
  }
}
