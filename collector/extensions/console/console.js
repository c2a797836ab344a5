// Telemetry is hostile text: everything is written with textContent, nothing is ever parsed as HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const number = (value) => Number(value || 0).toLocaleString("en-US");
const dollars = (value) => (value === null || value === undefined ? "" : "$" + Number(value.toPrecision(6)));

function row(cells, options = {}) {
  const line = document.createElement("tr");
  for (const cell of cells) {
    const td = document.createElement("td");
    const { text, cls } = typeof cell === "object" && cell !== null ? cell : { text: cell };
    td.textContent = text ?? "";
    if (cls) td.className = cls;
    line.append(td);
  }
  if (options.open) {
    line.className = "open";
    line.tabIndex = 0;
    line.addEventListener("click", options.open);
    line.addEventListener("keydown", (event) => { if (event.key === "Enter") options.open(); });
  }
  return line;
}

const fill = (id, rows) => byId(id).querySelector("tbody").replaceChildren(...rows);
const right = (text) => ({ text, cls: "r" });

function showTraces(traces) {
  byId("traces").hidden = traces.length === 0;
  byId("no-traces").hidden = traces.length > 0;
  fill("traces", traces.map((t) => row([
    t.time.slice(11, 19), t.service, { text: t.name, cls: "wide" }, t.models.join(", "), right(t.tokens ? number(t.tokens) : ""),
    right(dollars(t.cost_usd)), right(number(t.span_count)), right(number(Math.round(t.duration_ms))),
    { text: t.errors ? "error" : "", cls: "bad" },
  ], { open: () => openTrace(t.trace_id) })));
}

async function openTrace(id) {
  const answer = await fetch("/api/v1/traces/" + encodeURIComponent(id));
  const detail = byId("detail");
  detail.hidden = false;
  if (!answer.ok) { detail.textContent = "This trace is no longer kept."; return; }
  const trace = await answer.json();
  const title = document.createElement("h2");
  title.textContent = trace.name + "  " + trace.trace_id;
  const table = document.createElement("table");
  const start = Math.min(...trace.spans.map((s) => s.start));
  const length = Math.max(1, ...trace.spans.map((s) => s.end - start));
  for (const span of trace.spans) {
    const line = row([span.service, { text: span.name, cls: "wide" }, span.model, right(dollars(span.cost_usd))]);
    const cell = document.createElement("td");
    cell.style.width = "40%";
    const bar = document.createElement("span");
    bar.className = span.error ? "bar bad" : "bar";
    bar.style.marginLeft = (100 * (span.start - start)) / length + "%";
    bar.style.width = (100 * (span.end - span.start)) / length + "%";
    bar.title = ((span.end - span.start) / 1e6).toFixed(1) + " ms";
    cell.append(bar);
    line.append(cell);
    table.append(line);
    for (const [key, value] of Object.entries(span.attributes)) {
      const attribute = row(["", { text: key, cls: "soft" }, { text: String(value), cls: "wide" }]);
      attribute.lastChild.colSpan = 3;
      table.append(attribute);
    }
  }
  detail.replaceChildren(title, table);
}

function showBooks(accounting) {
  const rows = [];
  const sums = { accepted: 0, delivered: 0, sampled: 0, lost: 0 };
  for (const [signal, destinations] of Object.entries(accounting)) {
    const seen = { accepted: 0, sampled: 0 };
    for (const [name, terms] of Object.entries(destinations)) {
      const drops = Object.entries(terms).filter(([key, value]) => key.startsWith("dropped_") && value);
      rows.push(row([signal, name, right(number(terms.accepted)), right(number(terms.delivered)), right(number(terms.queued)),
        { text: drops.map(([key, value]) => key.slice(8) + " " + number(value)).join(", "), cls: "wide" }]));
      seen.accepted = Math.max(seen.accepted, terms.accepted || 0);
      seen.sampled = Math.max(seen.sampled, terms.dropped_sampled || 0);
      sums.delivered += terms.delivered || 0;
      for (const [key, value] of drops) if (!["dropped_sampled", "dropped_filtered"].includes(key)) sums.lost += value;
    }
    sums.accepted += seen.accepted;
    sums.sampled += seen.sampled;
  }
  fill("books", rows);
  byId("n-accepted").textContent = number(sums.accepted);
  byId("n-delivered").textContent = number(sums.delivered);
  byId("n-sampled").textContent = number(sums.sampled);
  byId("n-dropped").textContent = number(sums.lost);
}

function showSpend(spend) {
  fill("spend", spend.models.map((m) => row([{ text: m.model, cls: "wide" }, right(number(m.calls)), right(number(m.tokens)), right(dollars(m.cost_usd))])));
  byId("n-cost").textContent = dollars(spend.total_cost_usd) || "$0";
  const note = byId("unpriced");
  note.hidden = spend.unpriced.length === 0;
  note.textContent = "Not priced: " + spend.unpriced.map((u) => number(u.calls) + " calls of " + (u.model || "unknown") + " (" + u.reason + ")").join(", ");
}

function showRest(view) {
  byId("n-masked").textContent = number(Object.values(view.masked).reduce((a, b) => a + b, 0));
  byId("n-masked").title = Object.entries(view.masked).map(([type, count]) => type + " " + count).join("\n");
  byId("pipelines").replaceChildren(...Object.entries(view.pipelines).map(([name, p]) => {
    const item = document.createElement("li");
    item.textContent = name + ": " + [p.receivers.join(" + "), ...p.processors, p.exporters.join(" + ")].join("  →  ");
    return item;
  }));
  byId("endpoints").textContent = Object.values(view.endpoints).map((url) => "Prometheus metrics: " + url).join("   ");
  fill("logs", view.logs.map((l) => row([l.time.slice(11, 19), l.service, l.severity, { text: String(l.body), cls: "wide" }])));
  const mib = (view.memory.resident_bytes || 0) / 1048576;
  byId("state").textContent = view.state + ", version " + view.version + ", up " + Math.round(view.uptime_seconds) + " s, " + mib.toFixed(0) + " MiB";
}

async function refresh() {
  try {
    const view = await (await fetch("/api/v1/overview")).json();
    showTraces(view.traces);
    showBooks(view.accounting);
    showSpend(view.spend);
    showRest(view);
  } catch (error) {
    byId("state").textContent = "no answer from the sidecar";
  }
  setTimeout(refresh, document.hidden ? 5000 : 1000);
}

refresh();
