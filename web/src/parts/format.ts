// Numbers and times as people read them.

export const NANO = 1e9;

export function money(dollars: number | null | undefined): string {
  if (dollars == null) return "–";
  if (dollars === 0) return "$0";
  const size = Math.abs(dollars);
  if (size >= 100) return `$${dollars.toLocaleString("en", { maximumFractionDigits: 0 })}`;
  if (size >= 1) return `$${dollars.toFixed(2)}`;
  if (size >= 0.01) return `$${dollars.toFixed(3)}`;
  return `$${Number(dollars.toPrecision(2))}`;
}

export const nano = (amount: number | null | undefined): string =>
  amount == null ? "–" : money(amount / NANO);

export function millis(amount: number | null | undefined): string {
  if (amount == null) return "–";
  if (amount < 1) return `${amount.toFixed(2)} ms`;
  if (amount < 1000) return `${Math.round(amount)} ms`;
  if (amount < 60_000) return `${(amount / 1000).toFixed(amount < 10_000 ? 2 : 1)} s`;
  return `${(amount / 60_000).toFixed(1)} min`;
}

export function count(amount: number | null | undefined): string {
  if (amount == null) return "–";
  if (Math.abs(amount) < 10_000) return amount.toLocaleString("en");
  return amount.toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });
}

export const share = (part: number | null | undefined): string =>
  part == null ? "–" : `${(part * 100).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;

const STEPS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_536_000], ["month", 2_592_000], ["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

/** How long ago, or how long from now; `seconds` are of the epoch. */
export function ago(seconds: number, now: number): string {
  const apart = seconds - now;
  if (Math.abs(apart) < 5) return "now";
  const [unit, size] = STEPS.find(([, size]) => Math.abs(apart) >= size) ?? ["second", 1];
  return relative.format(Math.round(apart / size), unit);
}

export const absolute = (seconds: number): string => {
  const date = new Date(seconds * 1000);
  const day = date.toLocaleDateString("sv");
  return `${day} ${date.toLocaleTimeString("sv")}.${String(date.getMilliseconds()).padStart(3, "0")}`;
};

export const words = (name: string): string => name.replaceAll("_", " ");
