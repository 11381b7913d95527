// The live page: what /api/v1/stream tells once a second, put into the document. Every text goes in as text.

const CELLS_MAX = 96; // squares of one pool; beyond it one stands for several connections
const DOTS_MAX = 48; // dots of those who wait
const HISTORY = 60; // seconds of the line under a pool
const STALE_AFTER_MS = 3500; // without news the page says so
const RETRY_MS = 3000;
const ANNOUNCE_EVERY_MS = 10000; // for screen readers: changes of state, and no oftener
const WAIT_TOLD_SECONDS = 0.25; // shorter waits are how a pool works
const FINDINGS_MAX = 4;
const QUERIES_MAX = 12;
const QUERIES_EVERY_MS = 5000;
const WHY_EVERY_MS = 10000; // and not at all while all is well
const BACKGROUND = new Set(["jobs", "workers"]);

const byId = (id) => document.getElementById(id);

/** Sets a text only if it is another one, so that nothing selected or read aloud is disturbed. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function make(name, attributes = {}, ...inside) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...inside);
  return node;
}

/** Makes the children of `parent` as many as `items`, each filled by `fill`. */
function each(parent, items, fresh, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(fresh());
  items.forEach((item, at) => fill(parent.children[at], item));
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.0095) return `${(seconds * 1000).toFixed(seconds < 0.00095 ? 2 : 1)} ms`;
  if (seconds < 0.95) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${seconds.toFixed(1)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

function bytes(count) {
  if (count < 1024) return `${count} B`;
  if (count < 1048576) return `${Math.round(count / 1024)} KiB`;
  return `${(count / 1048576).toFixed(1)} MiB`;
}

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Fills a table. A column: [title, class, value of a row]; a value is a text, or [text, class]. */
function table(node, columns, rows, none) {
  each(node.tHead, [columns], () => make("tr"), (row) => {
    each(row, columns, () => make("th", { scope: "col" }), (cell, [title, kind]) => {
      cell.className = kind;
      say(cell, title);
    });
  });
  const body = node.tBodies[0];
  node.tHead.hidden = rows.length === 0;
  if (rows.length === 0) {
    if (body.children.length !== 1 || !body.querySelector("[data-none]")) {
      body.replaceChildren(make("tr", { "data-none": "" }, make("td", { class: "none" })));
    }
    body.querySelector("td").colSpan = columns.length;
    return say(body.querySelector("td"), none);
  }
  body.querySelector("[data-none]")?.remove();
  const fresh = () => make("tr", {}, ...columns.map((_, at) => (at === 0 ? make("th", { scope: "row" }) : make("td"))));
  each(body, rows, fresh, (row, item) => {
    columns.forEach(([, kind, value], at) => {
      const told = value(item);
      const [text, extra] = Array.isArray(told) ? told : [told, ""];
      row.children[at].className = `${kind} ${extra}`.trim();
      say(row.children[at], text);
    });
  });
}

// === The state ===

let lastAnnounced = { level: "unknown", at: 0 };

function state(told) {
  document.body.dataset.level = told.level;
  say(byId("kicker"), { ok: "State", warning: "Look at this", critical: "Trouble" }[told.level] ?? "State");
  say(byId("sentence"), told.summary);
  each(byId("because"), because(told), () => make("li"), say);
  const waiting = told.clients.waiting;
  const short = told.level === "ok" ? "All well" : waiting > 0 ? `${whole.format(waiting)} wait` : told.summary;
  document.title = `${short} · Bulkhead`;
  const now = Date.now();
  if (told.level !== lastAnnounced.level && now - lastAnnounced.at > ANNOUNCE_EVERY_MS) {
    lastAnnounced = { level: told.level, at: now };
    say(byId("announce"), told.summary);
  }
}

/** What stands below the sentence: who holds what others wait for, and what else is wrong. */
function because(told) {
  const lines = [];
  for (const pool of [...told.pools].sort((a, b) => b.longest_wait_seconds - a.longest_wait_seconds)) {
    if (pool.longest_wait_seconds < WAIT_TOLD_SECONDS || pool.held_by.length === 0) continue;
    const holders = pool.held_by.slice(0, 3).map(
      (group) => `${group.application_name || group.user} (${group.connections}, up to ${duration(group.longest_seconds)})`,
    );
    lines.push(`${pool.name} is held by ${holders.join(", ")}`);
  }
  for (const reason of told.reasons_not_ready) if (reason.toLowerCase() !== told.summary.toLowerCase()) lines.push(reason);
  if (lines.length === 0 && told.level === "ok") {
    const up = told.servers.filter((server) => server.state === "up").length;
    lines.push(`${up} of ${told.servers.length} servers up, nobody waits for a connection.`);
  }
  return lines.slice(0, 6);
}

function tally(clients) {
  const items = [["clients", clients.total], ["active", clients.active], ["waiting", clients.waiting], ["idle", clients.idle]];
  each(byId("tally"), items, () => make("div", {}, make("dt"), make("dd")), (node, [name, count]) => {
    say(node.children[0], name);
    say(node.children[1], whole.format(count));
  });
}

// === Pools ===

const waitedBefore = new Map();

function pools(all) {
  const ordered = [...all].sort((a, b) => BACKGROUND.has(a.name) - BACKGROUND.has(b.name));
  each(byId("hull"), ordered, freshPool, fillPool);
  for (const name of waitedBefore.keys()) if (!all.some((pool) => pool.name === name)) waitedBefore.delete(name);
}

function freshPool() {
  const spark = byId("spark").content.firstElementChild.cloneNode(true);
  const name = make("div", { class: "name" }, make("h3"), make("p", { class: "tag" }));
  const use = make("p", { class: "use" }, make("b"), make("span"));
  const hold = make("div", { class: "hold" }, name, use, make("dl", { class: "facts" }), spark, make("div", { class: "cells", "aria-hidden": "true" }));
  return make("li", { class: "pool" }, make("div", { class: "deck" }), hold);
}

function fillPool(node, pool) {
  const kind = BACKGROUND.has(pool.name) ? "background" : "users";
  if (node.dataset.state !== pool.state) node.dataset.state = pool.state;
  const heat = pool.longest_wait_seconds >= WAIT_TOLD_SECONDS ? "signal" : "caution";
  if (node.dataset.heat !== heat) node.dataset.heat = heat;
  if (node.dataset.kind !== kind) node.dataset.kind = kind;
  const [deck, hold] = node.children;
  fillDeck(deck, pool);
  const [name, use, facts, spark, cells] = hold.children;
  say(name.children[0], pool.name);
  const full = pool.active >= pool.max_connections ? "full" : "waited for";
  const words = { waiting: full, busy: "no room left", free: "", down: "server down", paused: "paused", disabled: "disabled" };
  say(name.children[1], words[pool.state] || (kind === "background" ? "background" : ""));
  name.children[1].toggleAttribute("data-bad", !["free", "busy"].includes(pool.state));
  say(use.children[0], String(pool.active));
  say(use.children[1], ` of ${pool.max_connections} in use`);
  const lines = [["wait p95, 1 min", duration(pool.wait_p95_seconds)], ["idle", String(pool.idle)]];
  const most = Math.max(0, ...(waitedBefore.get(pool.name) ?? []));
  if (most > 0) lines.push(["most that waited, 1 min", whole.format(most)]);
  if (pool.pinned > 0) lines.push(["pinned", `${pool.pinned} of ${pool.max_pinned}`]);
  fillFacts(facts, lines);
  fillSpark(spark, pool);
  fillCells(cells, pool);
}

function fillFacts(facts, lines) {
  const nodes = lines.flatMap(() => ["DT", "DD"]);
  const fits = facts.children.length === nodes.length && nodes.every((name, at) => facts.children[at].tagName === name);
  if (!fits) facts.replaceChildren(...nodes.map((name) => make(name.toLowerCase())));
  lines.flat().forEach((text, at) => say(facts.children[at], text));
}

function fillDeck(deck, pool) {
  if (pool.waiting === 0) return deck.replaceChildren();
  if (deck.children.length === 0) {
    deck.append(make("div", { class: "queue", "aria-hidden": "true" }), make("p", {}, make("b"), make("span")));
  }
  const dots = Math.min(pool.waiting, DOTS_MAX);
  each(deck.children[0], Array(dots).fill(0), () => make("i"), () => {});
  const words = deck.children[1];
  say(words.children[0], `${whole.format(pool.waiting)} ${pool.waiting === 1 ? "waits" : "wait"}`);
  say(words.children[1], `, oldest ${duration(pool.longest_wait_seconds)}`);
}

function fillCells(cells, pool) {
  const scale = Math.max(1, Math.ceil(pool.max_connections / CELLS_MAX));
  const pinned = Math.min(pool.pinned, pool.active);
  const kinds = [["pinned", pinned], ["active", pool.active - pinned], ["moving", pool.connecting + pool.closing], ["idle", pool.idle]];
  const all = kinds.flatMap(([kind, count]) => Array(Math.ceil(count / scale)).fill(kind));
  cells.dataset.size = pool.max_connections <= 16 ? "large" : pool.max_connections <= 48 ? "middle" : "small";
  const total = Math.max(Math.ceil(pool.max_connections / scale), all.length);
  while (all.length < total) all.push("free");
  each(cells, all, () => make("i", { class: "cell" }), (cell, kind) => {
    if (cell.dataset.is !== kind) cell.dataset.is = kind;
  });
}

function fillSpark(spark, pool) {
  const past = waitedBefore.get(pool.name) ?? [];
  past.push(pool.waiting);
  if (past.length > HISTORY) past.shift();
  waitedBefore.set(pool.name, past);
  const most = Math.max(...past);
  const points = past.map((count, at) => `${HISTORY - past.length + at},${(19 - (count / Math.max(most, 1)) * 17).toFixed(1)}`);
  spark.lastElementChild.setAttribute("points", points.join(" "));
  spark.toggleAttribute("data-calm", most === 0);
  spark.setAttribute("aria-label", `Most that waited at once in the last minute: ${most}`);
}

// === Tables ===

function holders(all) {
  const rows = all.flatMap((pool) => [
    ...pool.waiting_for_it.map((group) => ({
      pool: pool.name, does: "waits", who: `${group.user}@${group.database}`, count: group.waiting, longest: group.longest_wait_seconds,
    })),
    ...pool.held_by.map((group) => ({
      pool: pool.name, does: "holds", who: group.application_name || group.user, count: group.connections, longest: group.longest_seconds,
    })),
  ]);
  rows.sort((a, b) => (b.does === "waits") - (a.does === "waits") || b.longest - a.longest);
  table(byId("holders"), [
    ["pool", "", (row) => row.pool],
    ["does", "", (row) => [row.does, row.does === "waits" ? "bad" : ""]],
    ["who", "text", (row) => row.who],
    ["how many", "number", (row) => whole.format(row.count)],
    ["longest", "number", (row) => duration(row.longest)],
  ], rows.slice(0, 12), "Nobody holds a connection, nobody waits.");
}

function servers(all) {
  table(byId("servers"), [
    ["server", "", (server) => server.name],
    ["role", "", (server) => server.role],
    ["state", "", (server) => [server.state, { up: "good", down: "bad" }[server.state] ?? "warn"]],
    ["since", "number", (server) => duration(server.state_seconds)],
    ["lag", "number", lag],
    ["open", "number", (server) => String(server.open_connections)],
    ["trouble", "text", (server) => [server.last_error ?? server.replica?.why_not ?? "", server.last_error ? "bad" : "warn"]],
  ], all, "No servers.");
}

function lag(server) {
  if (!server.replica) return "–";
  return `${duration(server.replica.lag_seconds)}, ${bytes(server.replica.lag_bytes)}`;
}

function reasons(all) {
  table(byId("reasons"), [
    ["pool", "", (row) => row.pool],
    ["class", "", (row) => row.class],
    ["because", "text", (row) => row.meaning],
    ["requests", "number", (row) => whole.format(row.requests)],
  ], all, "No statement yet.");
}

function pins(all) {
  table(byId("pins"), [
    ["pool", "", (row) => row.pool],
    ["server", "", (row) => row.server],
    ["by", "text", (row) => row.reason],
    ["pinned", "number", (row) => `${row.pinned} of ${row.max_pinned}`],
  ], all, "No session keeps its connection.");
}

function events(all) {
  const items = all.length > 0 ? all : [{ at_seconds: null, level: "info", message: "Nothing yet.", fields: {} }];
  const fresh = () => make("li", {}, make("time"), make("div", {}, make("p"), make("span")));
  each(byId("events"), items, fresh, (node, event) => {
    const at = event.at_seconds === null ? null : new Date(event.at_seconds * 1000);
    node.dataset.level = event.level;
    if (at) node.children[0].dateTime = at.toISOString();
    say(node.children[0], at ? clock.format(at) : "");
    const [message, fields] = node.children[1].children;
    say(message, event.message);
    say(fields, Object.entries(event.fields).map(([name, value]) => `${name} ${value}`).join(" · "));
  });
}

// === What is asked for now and then ===

const missing = new Set();

/** An answer of the API; null if there is none. What is not in this version is not asked for again. */
async function ask(path) {
  if (missing.has(path)) return null;
  try {
    const answer = await fetch(`/api/v1/${path}`, { headers: { accept: "application/json" } });
    if (answer.status === 501) missing.add(path);
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

let asking = false;
let askedAt = 0;

/** The causes, as the servers and Bulkhead know them. One question at a time: it costs each server a connection. */
async function askWhy() {
  if (asking) return;
  asking = true;
  byId("ask-why").setAttribute("aria-disabled", "true");
  const why = await ask("why");
  asking = false;
  askedAt = Date.now();
  byId("ask-why").setAttribute("aria-disabled", "false");
  if (why === null) return;
  byId("ask").hidden = false;
  say(byId("asked"), `${why.well ? "Nothing found" : `${why.findings.length} found`} at ${clock.format(new Date())}`);
  const fresh = () => make("li", {}, make("b"), make("p"), make("p"));
  each(byId("why"), why.findings.slice(0, FINDINGS_MAX), fresh, (node, finding) => {
    node.dataset.severity = finding.severity;
    say(node.children[0], finding.title);
    say(node.children[1], finding.evidence.slice(0, 4).join(" · "));
    say(node.children[2], finding.next);
  });
}

async function askQueries() {
  const told = await ask(`queries?limit=${QUERIES_MAX}`);
  const section = byId("queries");
  section.hidden = told === null;
  if (told === null) return;
  const micros = (count) => duration(count / 1e6);
  table(section.querySelector("table"), [
    ["pool", "", (query) => query.pool],
    ["statement", "statement", (query) => query.query],
    ["calls", "number", (query) => whole.format(query.calls)],
    ["errors", "number", (query) => [whole.format(query.errors), query.errors > 0 ? "bad" : ""]],
    ["total", "number", (query) => micros(query.total_time_us)],
    ["p95", "number", (query) => micros(query.p95_time_us)],
    ["waited", "number", (query) => micros(query.wait_time_us)],
  ], told.queries, "No statement yet.");
}

setInterval(() => {
  if (document.hidden) return;
  askQueries();
  if (document.body.dataset.level !== "ok" && Date.now() - askedAt > WHY_EVERY_MS) askWhy();
}, QUERIES_EVERY_MS);

byId("ask-why").addEventListener("click", askWhy);
askQueries();
askWhy();

// === News ===

let heard = 0;

function render(told) {
  say(byId("version"), told.version);
  state(told);
  tally(told.clients);
  pools(told.pools);
  holders(told.pools);
  servers(told.servers);
  reasons(told.reasons);
  pins(told.pins);
  events(told.events);
}

function link(is, words) {
  if (document.body.dataset.link !== is) document.body.dataset.link = is;
  say(byId("link-words"), words);
}

function listen() {
  const stream = new EventSource("/api/v1/stream");
  stream.onmessage = (message) => {
    heard = Date.now();
    link("live", "live");
    render(JSON.parse(message.data));
  };
  // A stream that was refused is closed for good: another one is tried.
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS);
  };
}

setInterval(() => {
  const ago = Date.now() - heard;
  if (ago < STALE_AFTER_MS) return;
  if (heard === 0) {
    say(byId("sentence"), "Bulkhead does not answer");
    return link("lost", "no answer yet");
  }
  link("lost", `no news for ${Math.round(ago / 1000)} s: this is what was`);
  document.title = "No news · Bulkhead";
}, 1000);

listen();
