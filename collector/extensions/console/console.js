// Telemetry is hostile text: everything is written with textContent, nothing is ever parsed as HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const number = (value) => Number(value || 0).toLocaleString("en-US");
const dollars = (value) => (value === null || value === undefined ? "" : "$" + Number(value.toPrecision(6)));
const clock = (time) => new Date(time).toLocaleTimeString("en-GB");
const duration = (ms) => (ms < 1 ? ms.toFixed(2) + " ms" : ms < 1000 ? Math.round(ms) + " ms" : (ms / 1000).toFixed(ms < 10000 ? 2 : 1) + " s");
const uptime = (s) => (s < 120 ? Math.round(s) + " s" : s < 7200 ? Math.round(s / 60) + " min" : (s / 3600).toFixed(1) + " h");
const several = (count, noun) => number(count) + " " + noun + (count === 1 ? "" : "s");
const sum = (values) => values.reduce((a, b) => a + b, 0);
const MASKED = /(\[[A-Z][A-Z0-9_]{2,40}\]|\*{4}(?:[ -]?\*{4})*(?:[ -]?[0-9]{4})?)/;
const ITEMS = { traces: "spans", logs: "log records", metrics: "data points" };
let chosen = "";
let drawn = {};

function make(tag, cls, text) {
  const made = document.createElement(tag);
  if (cls) made.className = cls;
  if (text !== undefined) made.textContent = text;
  return made;
}

// What redaction put in place of a value is marked, so that it is seen.
function marked(tag, cls, text) {
  const made = make(tag, cls);
  made.append(...String(text).split(MASKED).map((part, index) => (index % 2 ? make("mark", "", part) : document.createTextNode(part))));
  return made;
}

function row(cells, open) {
  const line = make("tr");
  for (const cell of cells) {
    if (cell instanceof Node) { line.append(cell); continue; }
    const { text, cls, title } = typeof cell === "object" && cell !== null ? cell : { text: cell };
    const td = make("td", cls, text ?? "");
    if (title) td.title = title;
    line.append(td);
  }
  if (open) {
    line.className = "open";
    line.tabIndex = 0;
    line.addEventListener("click", open);
    line.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
  }
  return line;
}

const right = (text) => ({ text, cls: "r" });

// Drawn only when something changed: else focus and selected text would be lost every second.
function fill(id, data, draw) {
  const text = JSON.stringify(data);
  if (drawn[id] === text) return;
  drawn[id] = text;
  const rows = draw(data);
  byId(id).querySelector("tbody").replaceChildren(...rows);
  const none = byId("no-" + id);
  if (none) { none.hidden = rows.length > 0; byId(id).hidden = rows.length === 0; }
}

const showTraces = (traces) => fill("traces", traces, () => traces.map((t) => {
  const state = make("td");
  if (t.errors) state.append(make("span", "tag bad", "error"));
  const line = row([
    { text: clock(t.time), title: t.time }, t.service, { text: t.name, cls: "wide" }, { text: t.models.join(", "), cls: "wide" },
    right(t.tokens ? number(t.tokens) : ""), right(dollars(t.cost_usd)), right(number(t.span_count)), right(duration(t.duration_ms)), state,
  ], () => openTrace(t.trace_id, true));
  line.dataset.trace = t.trace_id;
  line.classList.toggle("chosen", t.trace_id === chosen);
  return line;
}));

function choose(id) {
  chosen = id;
  for (const line of document.querySelectorAll("#traces tr.open")) line.classList.toggle("chosen", line.dataset.trace === id);
  if (!id) byId("detail").hidden = true;
}

async function openTrace(id, again) {
  if (again && chosen === id) { choose(""); return; }
  choose(id);
  const answer = await fetch("/api/v1/traces/" + encodeURIComponent(id));
  const detail = byId("detail");
  detail.hidden = false;
  if (!answer.ok) { detail.replaceChildren(make("p", "hint", "This trace is no longer kept.")); return; }
  const trace = await answer.json();
  const close = make("button", "", "close");
  close.addEventListener("click", () => choose(""));
  const head = make("div");
  head.append(make("h2", "", trace.name), make("span", "soft", trace.trace_id), close);
  const start = Math.min(...trace.spans.map((s) => s.start));
  const length = Math.max(1, ...trace.spans.map((s) => s.end - start));
  detail.replaceChildren(head, ...tree(trace.spans).map(([span, depth]) => spanRow(span, depth, start, length)));
}

// Spans below their parents, as [span, depth]; a span whose parent is not here stands at the left.
function tree(spans) {
  const known = new Set(spans.map((s) => s.span_id));
  const below = new Map();
  for (const span of spans) {
    const parent = known.has(span.parent) && span.parent !== span.span_id ? span.parent : "";
    below.set(parent, [...(below.get(parent) || []), span]);
  }
  const out = [], seen = new Set();
  const waiting = (below.get("") || []).map((s) => [s, 0]).reverse();
  while (waiting.length) {
    const [span, depth] = waiting.pop();
    if (seen.has(span)) continue;
    seen.add(span);
    out.push([span, depth]);
    waiting.push(...(below.get(span.span_id) || []).map((s) => [s, depth + 1]).reverse());
  }
  return [...out, ...spans.filter((s) => !seen.has(s)).map((s) => [s, 0])];
}

function spanRow(span, depth, start, length) {
  const details = make("details", "span");
  details.open = Boolean(span.model || span.error);
  const summary = make("summary");
  const name = make("span", span.error ? "bad" : "", span.name);
  name.style.paddingLeft = Math.min(depth, 8) * 1.1 + "rem";
  name.title = span.service + ": " + span.name;
  const track = make("span", "track");
  const bar = make("span", span.error ? "bar bad" : "bar");
  bar.style.marginLeft = Math.min(99, (100 * (span.start - start)) / length) + "%";
  bar.style.width = (100 * (span.end - span.start)) / length + "%";
  track.append(bar);
  summary.append(name, make("span", "model soft", span.model), make("span", "r", dollars(span.cost_usd)), track,
    make("span", "r", duration((span.end - span.start) / 1e6)));
  const table = make("table"), body = make("tbody");
  if (span.error) body.append(row(["error", marked("td", "error", span.status || "status ERROR")]));
  if (span.events.length) body.append(row(["events", marked("td", "wide", span.events.join(", "))]));
  for (const [key, value] of Object.entries(span.attributes)) body.append(row([key, marked("td", "wide", said(key, value))]));
  table.append(body);
  details.append(summary, table);
  return details;
}

// Messages of an LLM call as `role: text`; anything else as it is.
function said(key, value) {
  if (!/messages$/.test(key) || typeof value !== "string") return String(value);
  try {
    return JSON.parse(value).map((m) => m.role + ": " + (m.parts ? m.parts.map((p) => p.content ?? p.type).join(" ") : m.content)).join("\n");
  } catch (error) {
    return value;
  }
}

function showBooks(accounting) {
  const sums = { accepted: 0, delivered: 0, sampled: 0, lost: 0, queued: 0 };
  const lost = {}, received = {};
  for (const [signal, destinations] of Object.entries(accounting)) {
    const seen = { accepted: 0, sampled: 0 };
    for (const terms of Object.values(destinations)) {
      seen.accepted = Math.max(seen.accepted, terms.accepted || 0);
      seen.sampled = Math.max(seen.sampled, terms.dropped_sampled || 0);
      sums.delivered += terms.delivered || 0;
      sums.queued += terms.queued || 0;
      for (const [reason, value] of drops(terms)) {
        if (["sampled", "filtered"].includes(reason)) continue;
        lost[reason] = (lost[reason] || 0) + value;
        sums.lost += value;
      }
    }
    if (seen.accepted) received[ITEMS[signal] || signal] = seen.accepted;
    sums.accepted += seen.accepted;
    sums.sampled += seen.sampled;
  }
  const list = Object.entries(accounting).flatMap(([signal, all]) => Object.entries(all).map(([name, terms]) => [signal, name, terms]));
  fill("books", list, () => list.map(([signal, name, terms]) => row([
    signal, name, right(number(terms.accepted)), right(number(terms.delivered)), right(number(terms.queued)),
    { text: drops(terms).map(([reason, value]) => reason + " " + number(value)).join(", "), cls: "wide" }])));
  tile("accepted", number(sums.accepted), listed(received));
  tile("delivered", number(sums.delivered), sums.queued ? number(sums.queued) + " still queued" : "");
  tile("sampled", number(sums.sampled), sums.sampled ? Math.round((100 * sums.sampled) / sums.accepted) + " % of all" : "");
  tile("dropped", number(sums.lost), listed(lost));
  byId("n-dropped").className = sums.lost ? "bad" : "";
}

const drops = (terms) => Object.entries(terms).filter(([key, value]) => key.startsWith("dropped_") && value).map(([key, value]) => [key.slice(8), value]);
const listed = (counts) => Object.entries(counts).map(([name, count]) => number(count) + " " + name.replaceAll("_", " ")).join(", ");

function tile(name, value, note) {
  byId("n-" + name).textContent = value;
  byId("s-" + name).textContent = note;
}

function showSpend(spend) {
  const most = Math.max(1e-12, ...spend.models.map((m) => m.cost_usd));
  fill("spend", spend.models, () => spend.models.map((m) => {
    const cell = make("td"), bar = make("span", "bar");
    cell.style.width = "25%";
    bar.style.width = (100 * m.cost_usd) / most + "%";
    bar.hidden = !m.cost_usd;
    cell.append(bar);
    return row([{ text: m.model, cls: "wide" }, right(number(m.calls)), right(number(m.tokens)), right(dollars(m.cost_usd)), cell]);
  }));
  tile("cost", dollars(spend.total_cost_usd) || "$0", spend.total_calls ? several(spend.total_calls, "call") + ", " + several(spend.total_tokens, "token") : "");
  const note = byId("unpriced");
  note.hidden = spend.unpriced.length === 0;
  note.textContent = "Not priced: " + spend.unpriced.map((u) => several(u.calls, "call") + " of " + (u.model || "unknown") + " (" + (u.reason || "").replaceAll("_", " ") + ")").join(", ");
}

function showRest(view) {
  tile("masked", number(sum(Object.values(view.masked))), listed(view.masked));
  fill("pipelines", view.pipelines, () => Object.entries(view.pipelines).map(([name, p]) => {
    const chain = make("td", "wide");
    [(p.receivers || []).join(" + "), ...(p.processors || []), (p.exporters || []).join(" + ")].forEach((step, index) => {
      chain.append(index ? " → " : "", make("span", "step", step));
    });
    return row([name, chain]);
  }));
  byId("endpoints").textContent = Object.values(view.endpoints).map((url) => "Prometheus metrics: " + url).join("   ");
  fill("logs", view.logs, () => view.logs.map((l) => row([
    { text: clock(l.time), title: l.time }, l.service, { text: l.severity, cls: /^(ERR|FATAL|CRIT)/i.test(l.severity) ? "bad" : "" }, marked("td", "wide", l.body),
  ], l.trace_id ? () => openTrace(l.trace_id).then(() => byId("detail").scrollIntoView({ block: "nearest" })) : undefined)));
  const mib = ((view.memory || {}).resident_bytes || 0) / 1048576;
  byId("about").textContent = "version " + view.version + ", up " + uptime(view.uptime_seconds) + ", " + mib.toFixed(0) + " MiB";
  state(view.state, view.state === "running");
}

function state(text, good) {
  byId("state").textContent = text;
  byId("state").className = good ? "" : "bad";
}

function showAlerts(view) {
  const found = [];
  if (view.last_reload_error) found.push("The last reload failed, the configuration before it is in force:\n" + view.last_reload_error);
  for (const [name, e] of Object.entries(view.exporters)) {
    const waiting = sum(Object.values(e.queued || {}));
    if (e.last_error) found.push(name + (e.down ? " is down" : " has trouble") + ", " + several(waiting, "item") + " kept and tried again: " + e.last_error);
    else if (e.max_bytes && e.bytes > 0.8 * e.max_bytes) found.push(name + ": its queue is " + Math.round((100 * e.bytes) / e.max_bytes) + " % full");
  }
  const text = JSON.stringify(found);
  if (drawn.alerts === text) return;
  drawn.alerts = text;
  byId("alerts").hidden = found.length === 0;
  byId("alerts").replaceChildren(...found.map((line) => make("li", "", line)));
}

async function refresh() {
  try {
    const answer = await fetch("/api/v1/overview");
    if (!answer.ok) throw new Error("HTTP " + answer.status);
    const view = await answer.json();
    showTraces(view.traces);
    byId("no-peek").hidden = view.keeps;
    if (!view.keeps) byId("no-traces").hidden = true;
    byId("kept-logs").hidden = !view.keeps;
    showBooks(view.accounting);
    showSpend(view.spend);
    showRest(view);
    showAlerts(view);
  } catch (error) {
    state("no answer", false);
  }
  setTimeout(refresh, document.hidden ? 5000 : 1000);
}

refresh();
