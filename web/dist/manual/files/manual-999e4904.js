// The manual reads without this. It adds: the colours that were chosen, a search over headings, the menu on small
// screens, and a button that copies commands.

// @ts-check

const NAME = "tokenhub.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const index = document.currentScript?.dataset["index"] ?? "";

function colour() {
  const kept = localStorage.getItem(NAME);
  const dark = kept === "dark" || (kept !== "light" && system.matches);
  document.documentElement.dataset["theme"] = dark ? "dark" : "light";
}

// Before anything is drawn.
colour();
system.addEventListener("change", colour);

/**
 * @typedef {{ url: string, title: string, headings: [string, string][] }} Listed
 * @typedef {{ url: string, words: string, page: string, rank: number }} Found
 */

/** @type {Promise<Listed[]> | undefined} */
let loading;

function listed() {
  loading ??= fetch(index).then((answer) => answer.json());
  return loading;
}

/**
 * The headings that have every word; those that begin with what is looked for come first, titles before others.
 *
 * @param {Listed[]} pages
 * @param {string} text
 * @returns {Found[]}
 */
function search(pages, text) {
  const wanted = text.trim().toLowerCase();
  const words = wanted.split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  /** @type {Found[]} */
  const found = [];
  for (const { url, title, headings } of pages) {
    /** @type {[string, string][]} */
    const all = [["", title], ...headings];
    for (const [anchor, heading] of all) {
      const own = heading.toLowerCase();
      const whole = `${own} ${title.toLowerCase()}`;
      if (!words.every((word) => whole.includes(word)) || !words.some((word) => own.includes(word))) continue;
      const rank = (own.startsWith(wanted) ? 0 : own.includes(wanted) ? 2 : 4) + (anchor ? 1 : 0);
      found.push({ url: anchor ? `${url}#${anchor}` : url, words: heading, page: anchor ? title : "", rank });
    }
  }
  return found.sort((one, other) => one.rank - other.rank).slice(0, 12);
}

function searching() {
  const box = /** @type {HTMLElement} */ (document.getElementById("search"));
  const field = /** @type {HTMLInputElement} */ (box.querySelector("input"));
  const list = /** @type {HTMLElement} */ (document.getElementById("found"));
  /** @type {Found[]} */
  let found = [];
  let at = 0;
  box.hidden = false;

  const draw = () => {
    const open = found.length > 0;
    list.hidden = !open;
    field.setAttribute("aria-expanded", String(open));
    list.replaceChildren(
      ...found.map((one, number) => {
        const item = document.createElement("li");
        item.id = `found-${number}`;
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", String(number === at));
        item.append(one.words);
        const page = document.createElement("span");
        page.className = "faint";
        page.textContent = one.page;
        item.append(page);
        item.addEventListener("mousedown", (event) => {
          event.preventDefault();
          go(one);
        });
        return item;
      }),
    );
    if (open) field.setAttribute("aria-activedescendant", `found-${at}`);
    else field.removeAttribute("aria-activedescendant");
  };
  /** @param {Found | undefined} one */
  const go = (one) => {
    if (!one) return;
    found = [];
    draw();
    location.href = one.url;
  };
  field.addEventListener("focus", () => void listed());
  field.addEventListener("input", async () => {
    const text = field.value;
    const pages = await listed();
    if (text !== field.value) return;
    found = search(pages, text);
    at = 0;
    draw();
  });
  field.addEventListener("keydown", (event) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step && found.length) at = (at + step + found.length) % found.length;
    else if (event.key === "Enter") return go(found[at]);
    else if (event.key === "Escape") found = [];
    else return;
    event.preventDefault();
    draw();
  });
  field.addEventListener("blur", () => {
    found = [];
    draw();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    field.focus();
  });
}

function menu() {
  const button = /** @type {HTMLElement} */ (document.getElementById("open"));
  const side = /** @type {HTMLElement} */ (document.getElementById("menu"));
  button.hidden = false;
  /** @param {boolean} open */
  const show = (open) => {
    side.classList.toggle("open", open);
    button.setAttribute("aria-expanded", String(open));
  };
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    show(!side.classList.contains("open"));
  });
  // The menu lies over its button: whatever is beside it closes it.
  document.addEventListener("click", (event) => event.target instanceof Node && !side.contains(event.target) && show(false));
  addEventListener("keydown", (event) => event.key === "Escape" && show(false));
  side.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
}

function colours() {
  const button = /** @type {HTMLElement} */ (document.getElementById("turn"));
  button.hidden = false;
  button.addEventListener("click", () => {
    localStorage.setItem(NAME, document.documentElement.dataset["theme"] === "dark" ? "light" : "dark");
    colour();
  });
}

function copying() {
  if (!navigator.clipboard) return;
  for (const block of document.querySelectorAll("pre")) {
    const button = document.createElement("button");
    button.className = "button small copies";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.textContent ?? "");
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    const frame = document.createElement("div");
    frame.className = "code";
    block.replaceWith(frame);
    frame.append(block, button);
  }
}

addEventListener("DOMContentLoaded", () => {
  searching();
  menu();
  colours();
  copying();
});
