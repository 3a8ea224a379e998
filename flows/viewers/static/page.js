"use strict";
// The live page: a virtual table over what /events pushes, and a pane over /placement. All that comes from
// outside goes through textContent or attributes of numbers: ids and labels are other people's strings.

const $ = (id) => document.getElementById(id);
const ROW_PX = 28, SPARE_ROWS = 4, SLOW_S = 5, DOWN_S = 30, OLD_S = 300, RESORT_MS = 5000, PANE_MS = 2000, RATE_S = 10;
const SPARK_FLOOR = 10;               // impressions a step at the top of a quiet row: one more or less is no peak

const STATES = {
  under: "under", at_risk: "at risk", over: "over", ended_short: "ended short", on_track: "on track", warming_up: "warming up",
  paused: "paused", not_started: "not started", complete: "complete", none: "no plan",
};
const SEVERITY = Object.fromEntries(Object.keys(STATES).map((state, rank) => [state, rank]));

// ------------------------------------------------------------------ what is known

let fields = {}, sparkPoints = 60, status = null, heardAt = -Infinity, began = 0;
const rows = new Map();               // id -> {id, v: texts, n: numbers, spark, path, search}
let shown = [], texts = [], wanted = new Set(), chosen = null, opened = null, dirty = true, sortedAt = 0;
const received = [];                  // [now_s, received]

const text = (row, field) => row.v[fields[field]] ?? null;
const number = (row, field) => row.n[fields[field]];
// Behind its end a flight delivers nothing more, whatever still runs.
// What a plan that came late has delivered nobody knows.
const delivered = (row) => text(row, "delivery.booked") === null ? number(row, "flight.impressions") : number(row, "delivery.delivered");
const numeral = (value) => (value === null || value === undefined || value === "" ? NaN : Number(value));

function stateOf(row) {
  const state = text(row, "delivery.state");
  return state === null ? "none" : Object.hasOwn(STATES, state) ? state : "none";
}

// An id may be `constructor`: only what the message itself holds counts.
const own = (table, id, otherwise) => (Object.hasOwn(table, id) ? table[id] : otherwise);

function take(id, cells) {
  let row = rows.get(id);
  if (!row) rows.set(id, (row = { id, v: [], n: [], spark: [], path: null, search: "", state: "none" }));
  for (const place in cells) {
    row.v[place] = cells[place];
    row.n[place] = numeral(cells[place]);
  }
  const state = stateOf(row);
  if (state !== row.state) { row.state = state; dirty = true; }
  const labels = ["campaign_id", "platform", "station", "podcast", "program"].map((label) => text(row, label) ?? "");
  row.search = [id, ...labels, STATES[state]].join("\n").toLowerCase();
}

function hear(message) {
  status = message.status;
  heardAt = performance.now();
  if (Number.isFinite(status.received)) received.push([status.now_s, status.received]);
  while (received.length > 2 && received[0][0] < status.now_s - RATE_S) received.shift();
  freshness();
}

function all(message) {
  fields = Object.fromEntries(message.fields.map((field, place) => [field, place]));
  sparkPoints = message.spark;
  rows.clear();
  received.length = 0;
  for (const id of Object.keys(message.rows)) {
    take(id, message.rows[id]);
    rows.get(id).spark = own(message.grown, id, []);
  }
  dirty = true;
  hear(message);
  refresh();
}

function change(message) {
  for (const id of message.gone) { rows.delete(id); dirty = true; }
  for (const id of Object.keys(message.rows)) { dirty ||= !rows.has(id); take(id, message.rows[id]); }
  if (message.grown) {
    for (const row of rows.values()) {
      row.spark.push(own(message.grown, row.id, 0));
      if (row.spark.length > sparkPoints) row.spark.shift();
      row.path = null;
    }
  }
  hear(message);
  refresh();
}

// ------------------------------------------------------------------ how it is written

const grouped = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const whole = (value) => (Number.isFinite(value) ? grouped.format(value) : "–");
const fixed = (value, places = 2) => (Number.isFinite(value) ? value.toFixed(places) : "–");
const percent = (value, places = 1) => (Number.isFinite(value) ? `${(value * 100).toFixed(places)} %` : "–");
const clock = (ms) => (Number.isFinite(ms) ? new Date(ms).toLocaleTimeString("en-GB") : "–");

function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${grouped.format(s / 86400)} d`;
}

function setText(element, value) {
  if (element.shown !== value) element.textContent = element.shown = value;
}

function make(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// ------------------------------------------------------------------ freshness

function verdict() {
  const silence = (performance.now() - heardAt) / 1000;
  if (status === null) return performance.now() - began < 5000 ? ["wait", "connecting"] : ["down", "the exporter does not answer"];
  if (silence > SLOW_S) return ["down", `connection to the exporter lost ${span(silence)} ago`];
  if (!status.up) return ["down", status.error.split(": ")[0]];
  if (status.flushed_s === null) return ["wait", "no flow has written yet"];
  const age = status.now_s - status.flushed_s + silence;
  if (age > DOWN_S) return ["down", `stalled: nothing written for ${span(age)}`];
  if (age > SLOW_S) return ["slow", `slow: nothing written for ${span(age)}`];
  // What is written every second may be of an hour ago: delivery is not judged by it either.
  const behind = status.watermark_s === null ? 0 : status.now_s - status.watermark_s + silence;
  return behind > OLD_S ? ["slow", `behind: numbers of ${span(behind)} ago`] : ["ok", "live"];
}

function freshness() {
  const [level, words] = verdict(), bar = $("bar");
  if (bar.dataset.level !== level) {
    bar.dataset.level = level;
    setText($("said"), words);
  }
  setText($("verdict"), words);
  $("verdict").title = status && !status.up ? status.error : words;
  if (status === null) return;
  const now = status.now_s + (performance.now() - heardAt) / 1000;
  setText($("flushed"), status.flushed_s === null ? "–" : `${span(now - status.flushed_s)} ago`);
  setText($("watermark"), status.watermark_s === null ? "–" : `${span(now - status.watermark_s)} behind`);
  const [first, last] = [received[0], received[received.length - 1]];
  setText($("rate"), received.length > 1 && last[0] > first[0] ? whole((last[1] - first[1]) / (last[0] - first[0])) : "–");
  for (const [id, count] of [["repeated", status.repeated], ["rejected", status.rejected], ["invalid", status.invalid_traffic]]) {
    setText($(id), status.received ? percent(count / status.received, 2) : "–");
  }
  setText($("pending"), whole(numeral(status.pending)));
}

// ------------------------------------------------------------------ the table

const tones = {
  indicator: (row) => ({ under: "bad", at_risk: "warn", on_track: "good", complete: "good" })[row.state] ?? "",
  completion: (row) => (number(row, "1h.mature_completion_rate") < number(row, "delivery.target_completion_rate") ? "warn" : ""),
};

const count = (key, title, hint, field, px, more = {}) => ({
  key, title, hint, px, sort: (row) => number(row, field), text: (row) => whole(number(row, field)), down: true, ...more,
});
const label = (key, title, field, px, more = {}) => ({
  key, title, hint: title, px, left: true, sort: (row) => text(row, field) ?? "", text: (row) => text(row, field) ?? "–", ...more,
});

const COLUMNS = [
  { key: "state", title: "state", hint: "delivery state", px: 106, left: true, pane: true, sort: (row) => SEVERITY[row.state], draw: drawState },
  { key: "id", title: "placement", hint: "placement", px: 130, left: true, pane: true, tone: () => "name", sort: (row) => row.id, text: (row) => row.id },
  label("campaign", "campaign", "campaign_id", 84, { tone: () => "soft" }),
  label("platform", "platform", "platform", 110, { tone: () => "soft", wide: true }),
  label("station", "station", "station", 96, { tone: () => "soft", wide: true }),
  { key: "indicator", title: "delivery", hint: "delivered / expected: 1 is on plan", px: 74, pane: true, tone: tones.indicator,
    sort: (row) => number(row, "delivery.indicator"), text: (row) => fixed(number(row, "delivery.indicator"), 3) },
  { key: "progress", title: "of booked", hint: "bar: delivered of booked; line: where the plan is", px: 104, pane: true, down: true,
    sort: (row) => delivered(row) / number(row, "delivery.booked"), draw: drawProgress },
  count("delivered", "delivered", "impressions of the flight up to its plan's end; without a plan, all", "", 84, { pane: true, sort: delivered, text: (row) => whole(delivered(row)) }),
  count("booked", "booked", "impressions booked", "delivery.booked", 84, { pane: true }),
  count("hour", "last hour", "impressions of the last hour", "1h.impressions", 80),
  count("required", "needed/h", "impressions an unpaused hour still needed", "delivery.required_rate", 80),
  { key: "spark", title: "last 10 min", hint: "impressions every ten seconds; sorts by the latest minute", px: 104, pane: true, down: true,
    sort: (row) => row.spark.slice(-6).reduce((sum, step) => sum + step, 0), draw: drawSpark },
  { key: "completion", title: "completed", hint: "mature completion rate of the last hour; amber below the plan's target", px: 82, pane: true, tone: tones.completion,
    sort: (row) => number(row, "1h.mature_completion_rate"), text: (row) => percent(number(row, "1h.mature_completion_rate")) },
  count("reach", "reach", "listeners in the flight", "flight.reach", 72),
  { key: "frequency", title: "freq.", hint: "plays a listener", px: 56, down: true,
    sort: (row) => number(row, "flight.frequency"), text: (row) => fixed(number(row, "flight.frequency")) },
  { key: "conversions", title: "conv.", hint: "conversions in the flight", px: 60, down: true, sort: (row) => number(row, "flight.conversions"),
    text: (row) => { const n = number(row, "flight.conversions"); return Number.isInteger(n) ? whole(n) : fixed(n, 1); } },
  { key: "cpa", title: "CPA", hint: "cost per acquisition, in the plan's currency", px: 66, down: true,
    sort: (row) => number(row, "flight.cost_per_acquisition"), text: (row) => fixed(number(row, "flight.cost_per_acquisition")) },
];

function drawState(cell, row) {
  cell.badge ??= cell.appendChild(make("span", "state"));
  if (cell.badge.dataset.state !== row.state) cell.badge.dataset.state = row.state;
  setText(cell.badge, STATES[row.state]);
}

function drawProgress(cell, row) {
  cell.track ??= cell.appendChild(make("span", "track", make("i"), make("b")));
  const booked = number(row, "delivery.booked"), key = `${delivered(row)}/${number(row, "delivery.expected")}/${booked}`;
  if (cell.key === key) return;
  cell.key = key;
  const part = (value) => `${Math.min(100, (100 * value) / booked).toFixed(2)}%`;
  const planned = booked > 0, [bar, line] = cell.track.children;
  cell.track.hidden = !planned;
  cell.track.style.display = planned ? "" : "none";
  if (!planned) return;
  bar.style.width = part(delivered(row));
  const expected = number(row, "delivery.expected");
  line.style.display = Number.isFinite(expected) ? "" : "none";
  if (Number.isFinite(expected)) line.style.left = part(expected);
}

function drawSpark(cell, row) {
  if (!cell.path) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${sparkPoints - 1} 18`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "spark");
    svg.setAttribute("aria-hidden", "true");
    cell.path = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    cell.appendChild(svg);
  }
  row.path ??= sparkPath(row.spark);
  if (cell.key !== row.path) cell.path.setAttribute("d", (cell.key = row.path));
}

function sparkPath(steps) {
  if (steps.length < 2) return "";
  const top = Math.max(SPARK_FLOOR, ...steps), left = sparkPoints - steps.length;
  return "M" + steps.map((step, place) => `${left + place} ${(17 - (16 * step) / top).toFixed(1)}`).join("L");
}

const byName = (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

/** Compares by a column; what has no value comes last, whichever way. */
function by(column, down) {
  const { sort } = COLUMNS.find((one) => one.key === column), sign = down ? -1 : 1;
  return (a, b) => {
    const x = sort(a), y = sort(b);
    if (x === y) return byName(a, b);
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || byName(a, b);
    return x < y ? -sign : sign;
  };
}

const order = (words, column, down, compare = by(column, down)) => ({ words, column, down, compare });
const busiest = by("delivered", true), leastDelivered = by("indicator", false);
const ORDERS = [
  order("worst delivery first", "state", false, (a, b) =>
    SEVERITY[a.state] - SEVERITY[b.state] ||
    (Number.isNaN(number(a, "delivery.indicator")) && Number.isNaN(number(b, "delivery.indicator")) ? busiest(a, b) : leastDelivered(a, b))),
  order("busiest first", "delivered", true),
  order("least completed first", "completion", false),
  order("most conversions first", "conversions", true),
  order("by name", "id", false),
];
let ordered = ORDERS[0], columns = [], slots = [];

function layOut() {
  const wide = matchMedia("(min-width: 1560px)").matches && opened === null;
  columns = COLUMNS.filter((column) => (opened === null ? wide || !column.wide : column.pane));
  $("scroll").classList.toggle("narrow", opened !== null);
  $("cols").replaceChildren(...columns.map((column) => { const col = make("col"); col.style.width = `${column.px}px`; return col; }));
  $("heads").replaceChildren(...columns.map((column) => {
    const head = make("th", column.left ? "left" : "", column.title);
    head.title = column.hint;
    head.scope = "col";
    head.setAttribute("role", "columnheader");
    head.onclick = () => {
      const down = ordered.column === column.key ? !ordered.down : Boolean(column.down);
      arrange(order(`by ${column.title}, ${down ? "greatest" : "least"} first`, column.key, down));
    };
    return head;
  }));
  slots = [];
  const pads = [make("tr", "pad", make("td")), make("tr", "pad", make("td"))];
  for (const pad of pads) { pad.setAttribute("aria-hidden", "true"); pad.firstChild.colSpan = columns.length; }
  $("rows").replaceChildren(...pads);
  arrange(ordered);
}

function arrange(next) {
  ordered = next;
  [...$("heads").children].forEach((head, place) => {
    if (columns[place].key === ordered.column) head.setAttribute("aria-sort", ordered.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  setText($("sorted"), ordered.words);
  dirty = true;
  refresh();
}

/** Filter and order anew where that is due, then draw. Rows keep their places for a while: nobody reads a table that jumps each second. */
function refresh() {
  const now = performance.now();
  if (dirty || now - sortedAt > RESORT_MS) {
    dirty = false;
    sortedAt = now;
    const found = [...rows.values()].filter((row) => texts.every((word) => row.search.includes(word)));
    drawChips(found);
    shown = (wanted.size ? found.filter((row) => wanted.has(row.state)) : found).sort(ordered.compare);
    setText($("count"), counted());
    $("empty").hidden = shown.length > 0;
    setText($("empty"), rows.size ? "nothing matches the filter" : "waiting for the first numbers");
    $("scroll").setAttribute("aria-rowcount", String(shown.length + 1));
  }
  draw();
}

function counted() {
  const total = status?.placements ?? rows.size;
  const cut = total > rows.size ? ` of ${whole(total)}, the worst and busiest` : "";
  return (shown.length === rows.size ? "" : `${whole(shown.length)} of `) + `${whole(rows.size)} placements${cut}`;
}

function drawChips(found) {
  const counts = {};
  for (const row of found) counts[row.state] = (counts[row.state] ?? 0) + 1;
  const states = Object.keys(STATES).filter((state) => counts[state] || wanted.has(state));
  const box = $("states");
  if (box.key !== states.join()) {
    box.key = states.join();
    box.replaceChildren(...states.map((state) => {
      const chip = make("button", "state");
      chip.type = "button";
      chip.dataset.state = state;
      chip.onclick = () => {
        if (!wanted.delete(state)) wanted.add(state);
        dirty = true;
        refresh();
      };
      return chip;
    }));
  }
  for (const chip of box.children) {
    const state = chip.dataset.state;
    setText(chip, `${whole(counts[state] ?? 0)} ${STATES[state]}`);
    chip.setAttribute("aria-pressed", String(wanted.has(state)));
  }
}

function newSlot(place) {
  const tr = make("tr");
  tr.id = `row-${place}`;
  tr.setAttribute("role", "row");
  const cells = columns.map((column) => {
    const cell = make("td", column.left ? "left" : "");
    cell.plain = cell.className;
    cell.setAttribute("role", "gridcell");
    return cell;
  });
  tr.append(...cells);
  tr.onclick = () => { choose(tr.row); open(tr.row); };
  $("rows").lastChild.before(tr);
  return { tr, cells };
}

/** Only rows in sight exist as elements, and of these only cells that changed are touched. */
function draw() {
  const box = $("scroll"), most = Math.ceil(box.clientHeight / ROW_PX) + 2 * SPARE_ROWS;
  const first = Math.max(0, Math.min(Math.floor(box.scrollTop / ROW_PX) - SPARE_ROWS, shown.length - most));
  const visible = shown.slice(first, first + most);
  while (slots.length < visible.length) slots.push(newSlot(slots.length));
  while (slots.length > visible.length) slots.pop().tr.remove();
  let active = "";
  visible.forEach((row, place) => {
    const { tr, cells } = slots[place], picked = String(row.id === chosen);
    tr.row = row.id;
    if (tr.dataset.state !== row.state) tr.dataset.state = row.state;
    if (tr.ariaSelected !== picked) tr.ariaSelected = picked;
    if (picked === "true") active = tr.id;
    tr.setAttribute("aria-rowindex", String(first + place + 2));
    columns.forEach((column, at) => {
      const cell = cells[at];
      if (column.draw) { column.draw(cell, row); return; }
      const words = column.text(row), tone = column.tone ? column.tone(row) : "";
      if (cell.shown !== words) { setText(cell, words); if (column.left) cell.title = words; }
      if (cell.tone !== tone) { cell.tone = tone; cell.className = `${cell.plain} ${tone}`; }
    });
  });
  const pads = [$("rows").firstChild, $("rows").lastChild];
  [first, shown.length - first - visible.length].forEach((missing, place) => {
    const height = `${Math.max(0, missing) * ROW_PX}px`;
    if (pads[place].style.height !== height) pads[place].style.height = height;
  });
  box.setAttribute("aria-activedescendant", active);
}

// ------------------------------------------------------------------ the pane

let chart = null, asked = 0, pending = 0;

function choose(id) { chosen = id; draw(); }

function move(steps) {
  if (!shown.length) return;
  const at = shown.findIndex((row) => row.id === chosen);
  const next = Math.max(0, Math.min(shown.length - 1, at < 0 ? (steps === Infinity ? steps : 0) : at + steps));
  choose(shown[next].id);
  const box = $("scroll"), top = next * ROW_PX, room = box.clientHeight - 30 - ROW_PX;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top > box.scrollTop + room) box.scrollTop = top - room;
  if (opened !== null) open(chosen);
}

function open(id) {
  const before = opened;
  opened = chosen = id;
  $("pane").hidden = false;
  history.replaceState(null, "", `#open=${encodeURIComponent(id)}`);
  if (before === null) layOut();
  if (before !== id) {
    chart?.destroy();
    chart = null;
    $("pane").scrollTop = 0;
  }
  load();
}

function close() {
  if (opened === null) return;
  opened = null;
  asked += 1;
  clearTimeout(pending);
  $("pane").hidden = true;
  history.replaceState(null, "", location.pathname);
  chart?.destroy();
  chart = null;
  layOut();
  $("scroll").focus();
}

async function load() {
  const id = opened, turn = (asked += 1);
  clearTimeout(pending);
  setText($("p-id"), id);
  try {
    const answer = await fetch(`/placement?id=${encodeURIComponent(id)}`);
    const found = await answer.json();
    if (turn !== asked) return;
    if (answer.ok) drawPane(found);
    else setText($("p-labels"), found.error);
  } catch {
    if (turn === asked) setText($("p-labels"), "the exporter does not answer");
  }
  if (turn === asked) pending = setTimeout(load, PANE_MS);
}

function facts(id, pairs) {
  $(id).replaceChildren(...pairs.map(([name, value, tone]) => make("div", tone ?? "", make("span", "", name), make("strong", "", value))));
}

function drawPane({ row, curve }) {
  const n = (field) => numeral(row[field]);
  const state = Object.hasOwn(STATES, row["delivery.state"] ?? "") ? row["delivery.state"] : "none";
  $("p-state").dataset.state = state;
  setText($("p-state"), STATES[state]);
  setText($("p-labels"), ["campaign_id", "platform", "station", "podcast", "program"].map((label) => row[label]).filter(Boolean).join("  ·  ") || "no labels");
  const bad = state === "under" ? "bad" : state === "at_risk" ? "warn" : "";
  facts("p-pacing", [
    ["indicator", fixed(n("delivery.indicator"), 3), bad],
    ["delivered", whole(numeral(row["delivery.booked"] === undefined ? row["flight.impressions"] : row["delivery.delivered"]))],
    ["expected", whole(n("delivery.expected"))],
    ["booked", whole(n("delivery.booked"))],
    ["last hour", whole(n("1h.impressions"))],
    ["needed an hour", whole(n("delivery.required_rate"))],
    ["projected", whole(n("delivery.projected")), n("delivery.projected") < n("delivery.booked") ? "warn" : ""],
    ["blocked content", whole(n("flight.blocked_impressions")), n("flight.blocked_impressions") > 0 ? "bad" : ""],
  ]);
  drawChart(curve);
  drawFunnel(n);
  drawReach(n);
  const types = (pattern) => Object.keys(row).filter((field) => pattern.test(field) && n(field) > 0).map((field) => [field.slice("flight.conversions_".length), n(field)]);
  const money = (value) => (Number.isFinite(value) ? `${fixed(value)} ${row["delivery.currency"] ?? ""}`.trim() : "–");
  facts("p-conversions", [
    ["conversions", Number.isInteger(n("flight.conversions")) ? whole(n("flight.conversions")) : fixed(n("flight.conversions"), 2)],
    ["of reach", percent(n("flight.conversion_rate"), 2)],
    ["value", money(n("flight.conversion_value") / 1e6)],
    ["per acquisition", money(n("flight.cost_per_acquisition"))],
    ["half within", span(n("flight.time_to_convert_p50_seconds"))],
    ["return on spend", fixed(n("flight.return_on_ad_spend"))],
    ...types(/^flight\.conversions_/).map(([name, value]) => [name, Number.isInteger(value) ? whole(value) : fixed(value, 2)]),
  ]);
  facts("p-integrity", [
    ["repeated", whole(n("flight.repeated"))],
    ["too late", whole(n("flight.too_late"))],
    ["invalid traffic", whole(n("flight.invalid_traffic"))],
    ["orphans", whole(n("flight.orphans"))],
    ["repaired", whole(n("flight.repaired"))],
    ["consent", percent(n("flight.consent_coverage"))],
    ["final through", clock(n("final_through_ms"))],
    ["as of", clock(n("as_of_ms"))],
  ]);
}

function drawFunnel(n) {
  const steps = [["starts", "starts"], ["25 %", "first_quartiles"], ["50 %", "midpoints"], ["75 %", "third_quartiles"], ["completes", "completes"]];
  const starts = n("flight.starts");
  $("p-funnel").replaceChildren(...steps.map(([name, metric]) => {
    const value = n(`flight.${metric}`), bar = make("i");
    bar.style.width = starts > 0 && value > 0 ? `${(100 * value) / starts}%` : "0";
    return make("div", "step", make("span", "", name), make("span", "fill", bar), make("span", "", whole(value)), make("span", "", starts > 0 ? percent(value / starts) : "–"));
  }));
}

function drawReach(n) {
  const line = (tag, ...values) => make("tr", "", ...values.map((value, place) => make(tag, place ? "" : "left", value)));
  const windows = [["5m", "5 min"], ["1h", "1 hour"], ["1d", "today"], ["flight", "flight"]];
  $("p-reach").replaceChildren(
    line("th", "", "impressions", "reach", "frequency", "completed"),
    ...windows.map(([window, words]) => line("td", words, whole(n(`${window}.impressions`)), whole(n(`${window}.reach`)), fixed(n(`${window}.frequency`)), percent(n(`${window}.completion_rate`)))),
  );
}

function drawChart({ at_s: at, impressions, expected }) {
  const data = [at, impressions, expected], box = $("p-chart");
  if (chart) { chart.setData(data); return; }
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const value = (_, amount) => (amount === null ? "–" : whole(amount));
  chart = new uPlot({
    width: box.clientWidth, height: 140, cursor: { y: false }, legend: { live: true },
    axes: [{ ...axis, size: 24, values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })), incrs: [60, 120, 300, 600, 900] }, { ...axis, size: 58, values: (_, ticks) => ticks.map(whole) }],
    series: [
      { label: "at", value: (_, s) => (s === null ? "–" : clock(s * 1000)) },
      { label: "delivered", stroke: colour("--accent"), fill: colour("--accent") + "22", width: 2, points: { show: false }, value },
      { label: "plan", stroke: colour("--plan"), width: 1.5, dash: [5, 4], points: { show: false }, value },
    ],
  }, data, box);
}

// ------------------------------------------------------------------ keys, theme, wires

const THEMES = ["auto", "dark", "light"];
let theme = THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto";

function dress(next) {
  theme = next;
  localStorage.setItem("theme", theme);
  document.documentElement.dataset.theme = theme;
  setText($("theme"), theme === "auto" ? "auto theme" : theme);
  chart?.destroy();
  chart = null;
  if (opened !== null) load();
}

const page = () => Math.max(1, Math.floor($("scroll").clientHeight / ROW_PX) - 2);
const after = (list, one) => list[(list.indexOf(one) + 1) % list.length];
const KEYS = {
  "/": () => $("filter").focus(),
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  PageDown: () => move(page()), PageUp: () => move(-page()), Home: () => move(-Infinity), End: () => move(Infinity),
  Enter: () => { if (chosen === null) move(0); if (chosen !== null) open(chosen); },
  Escape: close,
  s: () => arrange(after(ORDERS, ordered)),
  t: () => dress(after(THEMES, theme)),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === $("filter")) {
    if (event.key === "Escape") { $("filter").value = ""; sift(); }
    else if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    $("scroll").focus();
    return;
  }
  if (event.key === "Enter" && event.target.closest("button")) return;
  const act = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
  if (!act) return;
  event.preventDefault();
  act();
});

function sift() {
  texts = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  dirty = true;
  $("scroll").scrollTop = 0;
  refresh();
}

$("filter").addEventListener("input", sift);
$("p-close").addEventListener("click", close);
$("sorted").addEventListener("click", KEYS.s);
$("theme").addEventListener("click", KEYS.t);
$("scroll").addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
new ResizeObserver(() => draw()).observe($("scroll"));
matchMedia("(min-width: 1560px)").addEventListener("change", layOut);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dress(theme));
setInterval(freshness, 500);

began = performance.now();
dress(theme);
const linked = new URLSearchParams(location.hash.slice(1)).get("open");
if (linked === null) layOut();
else open(linked);
$("scroll").focus();
const source = new EventSource("/events");
source.addEventListener("all", (event) => all(JSON.parse(event.data)));
source.addEventListener("change", (event) => change(JSON.parse(event.data)));
