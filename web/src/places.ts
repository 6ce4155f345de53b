// Where everything is: the menu, the palette and the router read this one list.

import type { ComponentType } from "preact";
import { lazy } from "preact/compat";
import { Live } from "./pages/live";
import { Overview } from "./pages/overview";

export interface Place {
  path: string;
  title: string;
  group: string;
  /** What else one might look for it by. */
  words: string;
  page: ComponentType;
}

const later = <Name extends string>(load: () => Promise<Record<Name, ComponentType>>, name: Name): ComponentType =>
  lazy(async () => ({ default: (await load())[name] }));

export const PLACES: readonly Place[] = [
  { path: "/", title: "Overview", group: "", words: "home dashboard totals", page: Overview },
  { path: "/ui/live", title: "Live", group: "Traffic", words: "decisions stream now", page: Live },
  { path: "/ui/requests", title: "Requests", group: "Traffic", words: "log search history calls", page: later(() => import("./pages/requests"), "Requests") },
  { path: "/ui/flow", title: "Flow", group: "Traffic", words: "graph sankey map", page: later(() => import("./pages/flow"), "Flow") },
  { path: "/ui/trends", title: "Trends", group: "Traffic", words: "charts cost latency tokens errors", page: later(() => import("./pages/trends"), "Trends") },
  { path: "/ui/workflows", title: "Workflows", group: "Traffic", words: "temporal durable history cancel", page: later(() => import("./pages/workflows"), "Workflows") },
  { path: "/ui/health", title: "Health", group: "Traffic", words: "breaker ejection providers state", page: later(() => import("./pages/health"), "Health") },
  { path: "/ui/providers", title: "Providers", group: "Routing", words: "credentials parking vendors base url", page: later(() => import("./pages/providers"), "Providers") },
  { path: "/ui/models", title: "Models", group: "Routing", words: "prices context weight catalogue", page: later(() => import("./pages/models"), "Models") },
  { path: "/ui/aliases", title: "Aliases", group: "Routing", words: "experiment variants pool", page: later(() => import("./pages/aliases"), "Aliases") },
  { path: "/ui/policy", title: "Policy", group: "Routing", words: "routing config defaults mode explore", page: later(() => import("./pages/policy"), "Policy") },
  { path: "/ui/exploring", title: "Exploring", group: "Routing", words: "thompson posteriors densities bandit learned", page: later(() => import("./pages/exploring"), "Exploring") },
  { path: "/ui/simulator", title: "Simulator", group: "Routing", words: "what if plan candidates scores", page: later(() => import("./pages/simulator"), "Simulator") },
  { path: "/ui/rehearsal", title: "Rehearsal", group: "Routing", words: "replay log other policy compare", page: later(() => import("./pages/rehearsal"), "Rehearsal") },
  { path: "/ui/shadow", title: "Shadow", group: "Routing", words: "modes hosts observe savings off", page: later(() => import("./pages/shadow"), "Shadow") },
  { path: "/ui/interception", title: "Interception", group: "Trust", words: "ca certificate root hosts intercept list", page: later(() => import("./pages/interception"), "InterceptionPage") },
  { path: "/ui/keys", title: "API keys", group: "Trust", words: "clients scopes rotate revoke limits", page: later(() => import("./pages/keys"), "Keys") },
  { path: "/ui/budgets", title: "Budgets", group: "Trust", words: "spend forecast money limits", page: later(() => import("./pages/budgets"), "Budgets") },
  { path: "/ui/vault", title: "Vault", group: "Trust", words: "secrets lock unlock password", page: later(() => import("./pages/vault"), "VaultPage") },
  { path: "/ui/access", title: "Access", group: "Trust", words: "users tokens sessions roles login", page: later(() => import("./pages/access"), "Access") },
  { path: "/ui/audit", title: "Audit", group: "Trust", words: "changes chain verify who", page: later(() => import("./pages/audit"), "Audit") },
  { path: "/ui/proofs", title: "Proofs", group: "Trust", words: "delivery tamper tool calls verify", page: later(() => import("./pages/proofs"), "Proofs") },
  { path: "/ui/webhooks", title: "Webhooks", group: "Server", words: "events deliveries notify alert", page: later(() => import("./pages/webhooks"), "Webhooks") },
  { path: "/ui/settings", title: "Settings", group: "Server", words: "environment variables defaults configuration", page: later(() => import("./pages/settings"), "SettingsPage") },
  { path: "/ui/setup", title: "Set up a client", group: "Help", words: "first run start sdk proxy environment onboarding", page: later(() => import("./pages/setup"), "Setup") },
];
