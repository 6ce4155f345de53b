// The first page: live decisions. Everything from outside goes through textContent.

const SHOWN = 200;
const find = (id) => document.getElementById(id);
const totals = { calls: 0, failed: 0, tokens: 0, cost: 0 };
let source;
let missed = 0;
// What writes have to show. It is in no storage: whoever reads one of those finds nothing.
let csrf = "";

async function opened(path, request) {
  const answer = await fetch(`/admin/v1/${path}`, { method: "POST", ...request });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error.message);
  csrf = told.csrf;
}

const logIn = (body) =>
  opened("login", { headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
const showToken = (token) => opened("session", { headers: { authorization: `Bearer ${token}` } });

async function signOut() {
  await fetch("/admin/v1/session", { method: "DELETE", headers: { "x-csrf-token": csrf } });
  csrf = "";
  leave("signed out");
}

function show(name) {
  find("login").hidden = name !== "login";
  find("live").hidden = name !== "live";
  find("leave").hidden = name !== "live";
}

function say(text, live = false) {
  find("state").textContent = text;
  find("state").classList.toggle("live", live);
}

const dollars = (amount) => (amount ? `$${amount.toPrecision(2)}` : "");
const millis = (amount) => (amount === undefined ? "" : `${Math.round(amount)} ms`);

function cells(event) {
  const served = event.model_id ? `${event.model_id} @ ${event.provider_id}` : "";
  const tokens = (event.input_tokens ?? 0) + (event.output_tokens ?? 0);
  return [
    [new Date(event.timestamp * 1000).toLocaleTimeString()],
    [event.program ?? ""],
    [event.requested_model ?? ""],
    [served],
    [event.error_msg ?? event.reason ?? "", "why"],
    [event.attempts ?? "", "n"],
    [millis(event.ttft_ms), "n"],
    [millis(event.latency_ms), "n"],
    [tokens || "", "n"],
    [dollars(event.cost_usd), "n"],
  ];
}

function tally() {
  find("calls").textContent = totals.calls;
  find("failed").textContent = totals.failed;
  find("tokens").textContent = totals.tokens.toLocaleString();
  find("cost").textContent = dollars(totals.cost) || "$0";
}

function add(event, failed) {
  totals.calls += 1;
  totals.failed += failed ? 1 : 0;
  totals.tokens += (event.input_tokens ?? 0) + (event.output_tokens ?? 0);
  totals.cost += event.cost_usd ?? 0;
  tally();
  const row = document.createElement("tr");
  row.classList.toggle("failed", failed);
  row.title = event.request_id ?? "";
  for (const [text, kind] of cells(event)) {
    const cell = document.createElement("td");
    cell.textContent = text;
    if (kind) cell.className = kind;
    row.append(cell);
  }
  const rows = find("rows");
  rows.prepend(row);
  if (rows.childElementCount > SHOWN) rows.lastElementChild.remove();
  rows.closest("table").hidden = false;
  find("empty").hidden = true;
}

function clear() {
  for (const name of Object.keys(totals)) totals[name] = 0;
  missed = 0;
  tally();
  find("rows").replaceChildren();
  find("rows").closest("table").hidden = true;
  find("empty").hidden = false;
}

function leave(why) {
  source?.close();
  show("login");
  say(why);
}

function listen() {
  // What was shown before comes again: the stream begins with the recent events.
  clear();
  show("live");
  source = new EventSource("/admin/v1/events?replay=true");
  source.onopen = () => say(missed ? `live, ${missed} events missed` : "live", true);
  source.onerror = () => {
    // A refusal ends the stream for good, everything else is tried again.
    if (source.readyState === EventSource.CLOSED) leave("the session has ended");
    else say("reconnecting");
  };
  source.addEventListener("lost", (message) => {
    missed += JSON.parse(message.data).count;
    say(`live, ${missed} events missed`, true);
  });
  source.addEventListener("route_success", (message) => add(JSON.parse(message.data), false));
  source.addEventListener("route_error", (message) => add(JSON.parse(message.data), true));
}

function refuse(why) {
  find("refused").textContent = why;
}

async function start() {
  // A fragment never reaches a server or its log; the ticket in it is taken off the address and spent.
  const ticket = location.hash.slice(1);
  history.replaceState(null, "", "/");
  if (ticket) {
    await logIn({ ticket }).catch((error) => refuse(error.message));
  }
  const known = await fetch("/admin/v1/session");
  if (known.ok) {
    csrf = (await known.json()).csrf;
    return listen();
  }
  say("");
  show("login");
}

find("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const [user, secret] = [find("user").value.trim(), find("secret").value];
    await (user ? logIn({ user, password: secret }) : showToken(secret));
    find("secret").value = "";
    refuse("");
    listen();
  } catch (error) {
    refuse(error.message);
  }
});
find("leave").addEventListener("click", signOut);
start();
