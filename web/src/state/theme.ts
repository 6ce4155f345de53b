// Dark, light, or as the system says. A choice is kept in the browser, and nothing else is.

import { effect, signal } from "@preact/signals";

const NAME = "tokenhub.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function kept(): boolean | null {
  const value = localStorage.getItem(NAME);
  return value === "dark" ? true : value === "light" ? false : null;
}

const chosen = signal<boolean | null>(kept());
export const dark = signal(chosen.value ?? system.matches);

effect(() => {
  document.documentElement.dataset["theme"] = dark.value ? "dark" : "light";
});
system.addEventListener("change", () => {
  if (chosen.value === null) dark.value = system.matches;
});

export function turn(): void {
  dark.value = !dark.value;
  chosen.value = dark.value;
  localStorage.setItem(NAME, dark.value ? "dark" : "light");
}
