// The grid of placements, campaigns, creatives or apps: filtered, grouped, ordered and summed; only visible rows are drawn.

import { CARD, columnsFor, inOrder, ordered, unitOf } from "./columns.js";
import { addUp, blocked, desk, isQuiet, newSum, text } from "./data.js";
import { $, button, make, narrow, setText } from "./dom.js";
import { GRIDS, GROUPS, filterWords, go, link, matcher, states, view } from "./view.js";
import { NULL, STATES, stateWords, whole } from "./words.js";

const SPARE_ROWS = 4, RESORT_MS = 5000;
const ROW_PX = 32, CARD_PX = 84;
const FEWEST_WELL = 5;                // the fewest rows on track that get a head of their own

export const table = { shown: [], columns: [], chosen: null, total: newSum("", "all shown") };
const folded = new Set();
const well = Object.assign(newSum("well\n", ""), { group: "well" });
const sums = new Map();               // group -> its sum, whose curve is reused
let slots = [], sortedAt = 0, laidOut = "";

export const cards = () => narrow.matches;
const rowPx = () => (cards() ? CARD_PX : ROW_PX);
export const scope = () => GRIDS[view.view] ?? "placement";
const rows = () => desk.rows[scope()];
const domId = (item) => `row-${encodeURIComponent(item.id)}`;

// ------------------------------------------------------------------ layout

/** Lays the columns out again if they, their units or the width have changed. */
export function layOut() {
  const box = $("scroll");
  if (!box.clientWidth) return;
  const columns = cards() && !view.cols ? CARD : columnsFor(box.clientWidth);
  const key = [cards(), scope(), ...columns.map((one) => `${one.key} ${unitOf(one)} ${one.px}`)].join();
  if (key !== laidOut) {
    laidOut = key;
    table.columns = columns;
    build(columns);
  }
  const { key: by, down } = ordered();
  for (const head of $("heads").children) {
    if (head.dataset.key === by) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function build(columns) {
  $("cols").replaceChildren(...columns.map(({ px }) => { const col = make("col"); col.style.width = `${px}px`; return col; }));
  $("grid").style.setProperty("--state", `${columns[0].px}px`);
  $("grid").style.minWidth = cards() ? "" : `${columns.reduce((so, { px }) => so + px, 0)}px`;
  $("heads").replaceChildren(...columns.map((column) => {
    const title = column.key === "id" ? scope() : column.title;
    const press = button(title, () => sortBy(column), { title: column.means });
    if (unitOf(column)) press.append(make("small", "", unitOf(column)));
    const head = make("th", `c-${column.key} ${column.left ? "left" : ""}`, press);
    head.scope = "col";
    head.dataset.key = column.key;
    head.setAttribute("role", "columnheader");
    return head;
  }));
  $("heads").hidden = false;  // a row without heads is invalid
  for (const { tr } of slots) tr.remove();
  slots = [];
  const pads = [make("tr", "pad", make("td")), make("tr", "pad", make("td"))];
  for (const pad of pads) { pad.setAttribute("aria-hidden", "true"); pad.firstChild.colSpan = columns.length; }
  $("rows").replaceChildren(...pads);
  const total = newSlot();
  total.tr.id = "total";
  $("sums").replaceChildren(total.tr);
  $("sums").slot_ = total;
  $("scroll").setAttribute("aria-colcount", String(columns.length));
}

function sortBy({ key, down }) {
  const now = ordered(), next = now.key === key ? !now.down : Boolean(down);
  go({ sort: `${next ? "-" : ""}${key}` });
}

// ------------------------------------------------------------------ rows

/** Filters and orders if that is due, then draws. Rows keep their places for `RESORT_MS`: a table that jumps each second cannot be read. */
export function refresh() {
  if ($("desk").hidden) return;
  const now = performance.now();
  layOut();
  if (desk.dirty || now - sortedAt > RESORT_MS) {
    desk.dirty = false;
    sortedAt = now;
    const matches = matcher(view.q), wanted = states();
    const matching = [...rows().values()].filter((row) => matches(row.search));
    drawChips(matching, wanted);
    table.rows = wanted.size ? matching.filter((row) => wanted.has(row.state) || (wanted.has("blocked") && blocked(row))) : matching;
    arrange();
    setText($("count"), counted());
    $("empty").hidden = table.rows.length > 0;
    $("grid").hidden = !table.rows.length;
    drawEmpty();
    $("scroll").setAttribute("aria-rowcount", String(table.shown.length + 2));
  }
  for (const item of table.shown) if (item.sum) addUp(item, item.rows);
  addUp(table.total, table.rows);
  draw();
}

function arrange() {
  const field = view.view === "placements" && Object.hasOwn(GROUPS, view.group) ? view.group : "";
  if (!field) { table.shown = foldWell(inOrder(table.rows)); return; }
  const groups = Map.groupBy(table.rows, (row) => text(row, field) ?? "");
  const heads = [...groups].map(([name, members]) => {
    const key = `${field}\n${name}`;
    if (!sums.has(key)) sums.set(key, Object.assign(newSum(key, name || NULL), { group: name }));
    const sum = sums.get(key);
    sum.folded = folded.has(key);
    addUp(sum, inOrder(members));
    return sum;
  });
  table.shown = inOrder(heads).flatMap((sum) => (sum.folded ? [sum] : [sum, ...sum.rows]));
}

/** Puts a foldable head before the rows on track, which are next to each other. */
function foldWell(ordered) {
  if (view.sort || states().size) return ordered;
  const calm = ordered.filter(isWell), at = ordered.findIndex(isWell);
  if (calm.length < FEWEST_WELL) return ordered;
  well.title = `${whole(calm.length)} on track`;
  well.folded = view.well === "folded";
  addUp(well, calm);
  return [...ordered.slice(0, at), well, ...(well.folded ? [] : calm), ...ordered.slice(at + calm.length)];
}
const isWell = (row) => row.state === "on_track" && blocked(row) === 0;

/** Shows the filter that no row matches, with a button to clear it. */
function drawEmpty() {
  const words = filterWords(view.q), named = words.map((word) => `“${word}”`).join(" or "), wanted = [...states()].map((state) => (state === "blocked" ? "in blocked content" : STATES[state]?.[0] ?? state)).join(" or ");
  const sentence = rows().size ? `No ${scope()} ${[named && `has ${named}`, wanted && `is ${wanted}`].filter(Boolean).join(" and ") || "is shown"}.` : desk.status ? `No ${scope()} has come yet.` : "Waiting for the first numbers.";
  const box = $("empty");
  if (box.key === sentence) return;
  box.key = sentence;
  box.replaceChildren(make("span", "", sentence), ...(rows().size ? [" ", button("Clear the filter", () => go({ q: "", state: "" }))] : []));
}

function counted() {
  const total = desk.status?.[`${scope()}s`] ?? rows().size;
  const cut = total > rows().size ? ` of ${whole(total)}, the worst and busiest` : "";
  return (table.rows.length === rows().size ? "" : `${whole(table.rows.length)} of `) + `${whole(rows().size)} ${scope()}s${cut}`;
}

function drawChips(matching, wanted) {
  const counts = { blocked: matching.filter(blocked).length };
  for (const row of matching) counts[row.state] = (counts[row.state] ?? 0) + 1;
  const all = ["blocked", ...Object.keys(STATES)].filter((state) => counts[state] || wanted.has(state)), box = $("states");
  if (box.key !== all.join()) {
    box.key = all.join();
    box.replaceChildren(...all.map((state) => {
      const chip = button("", () => toggle(state), { className: "state" });
      chip.dataset.state = state;
      return chip;
    }));
  }
  for (const chip of box.children) {
    const { state } = chip.dataset;
    setText(chip, state === "blocked" ? `${whole(counts.blocked)} in blocked content` : `${whole(counts[state] ?? 0)} ${stateWords(state)}`);
    chip.setAttribute("aria-pressed", String(wanted.has(state)));
  }
}

function toggle(state) {
  const wanted = states();
  if (!wanted.delete(state)) wanted.add(state);
  go({ state: [...wanted].join() });
}

export function fold(item) {
  if (item === well) { go({ well: view.well ? "" : "folded" }, { replace: true }); return; }
  if (!folded.delete(item.id)) folded.add(item.id);
  desk.dirty = true;
  refresh();
}

// ------------------------------------------------------------------ drawing

function newSlot() {
  const tr = make("tr");
  tr.setAttribute("role", "row");
  const cells = table.columns.map((column) => {
    const cell = make("td", `c-${column.key} ${column.left ? "left" : ""} ${column.soft ? "soft" : ""}`);
    cell.setAttribute("role", "gridcell");
    if (column.left) cell.dir = "auto";  // a name from right to left is cut at its end
    cell.dataset.title = column.title;
    cell.dataset.key = column.key;
    return cell;
  });
  tr.append(...cells);
  tr.addEventListener("click", (event) => {
    if (!tr.item || !getSelection().isCollapsed) return;
    // A click on a sum's name folds its group; a click on its numbers opens their description.
    if (tr.item.sum) { if (tr.item.group !== undefined && event.target.closest(".c-id, .c-state")) fold(tr.item); return; }
    choose(tr.item.id);
    if (cards() && !event.target.closest("a")) go({ open: tr.item.id });
  });
  return { tr, cells };
}

function fill({ tr, cells }, item) {
  tr.item = item;
  const state = item.sum ? "sum" : blocked(item) ? "blocked" : item.state;
  if (tr.dataset.state !== state) tr.dataset.state = state;
  const quiet = String(!item.sum && isQuiet(item));
  if (tr.dataset.quiet !== quiet) tr.dataset.quiet = quiet;
  table.columns.forEach((column, at) => {
    if (column.draw) column.draw(cells[at], item);
    else setText(cells[at], column.text(item));
  });
}

/** The begin and the height of the visible rows, in pixels: in the box, or on a phone in the window. */
function sight() {
  const box = $("scroll"), above = Math.max(0, -box.getBoundingClientRect().top);
  return [box.scrollTop + above, Math.min(box.clientHeight, innerHeight)];
}

/** Draws the visible rows. Only these exist as elements, and only changed cells are touched. */
export function draw() {
  if ($("desk").hidden || !slots || !table.columns.length) return;
  const [top, height] = sight(), px = rowPx(), { shown } = table;
  const most = Math.ceil(height / px) + 2 * SPARE_ROWS;
  const first = Math.max(0, Math.min(Math.floor(top / px) - SPARE_ROWS, shown.length - most));
  const visible = shown.slice(first, first + most);
  while (slots.length < visible.length) {
    slots.push(newSlot());
    $("rows").lastChild.before(slots.at(-1).tr);
  }
  while (slots.length > visible.length) slots.pop().tr.remove();
  let active = "";
  visible.forEach((item, place) => {
    const slot = slots[place], { tr } = slot, picked = String(item.id === table.chosen), id = domId(item);
    if (tr.id !== id) tr.id = id;
    if (tr.ariaSelected !== picked) tr.ariaSelected = picked;
    if (picked === "true") active = id;
    tr.setAttribute("aria-rowindex", String(first + place + 3));
    fill(slot, item);
  });
  const total = $("sums").slot_;
  fill(total, table.total);
  total.tr.setAttribute("aria-rowindex", "2");
  const pads = [$("rows").firstChild, $("rows").lastChild];
  [first, shown.length - first - visible.length].forEach((missing, place) => {
    const high = `${Math.max(0, missing) * px}px`;
    if (pads[place].style.height !== high) pads[place].style.height = high;
  });
  if (active) $("scroll").setAttribute("aria-activedescendant", active);
  else $("scroll").removeAttribute("aria-activedescendant");
}

// ------------------------------------------------------------------ moving

export function choose(id) {
  table.chosen = id;
  draw();
}

export const pageSize = () => Math.max(1, Math.floor(sight()[1] / rowPx()) - 3);

/** Moves the chosen row and keeps it in sight. */
export function move(steps) {
  const { shown } = table;
  if (!shown.length) return;
  const at = shown.findIndex((item) => item.id === table.chosen);
  const next = Math.max(0, Math.min(shown.length - 1, at < 0 ? (steps === Infinity ? steps : 0) : at + steps));
  const item = shown[next], box = $("scroll"), px = rowPx();
  const head = $("grid").tHead.offsetHeight, top = next * px, room = sight()[1] - head - px;
  const [from] = sight(), to = top < from ? top : top > from + room ? top - room : from;
  if (to !== from) {
    if (box.scrollHeight > box.clientHeight) box.scrollTop = to;
    else scrollBy(0, to - from);
  }
  choose(item.id);
  if (view.open && !item.sum) go({ open: item.id }, { replace: true });
}

export const chosenColumns = () => table.columns;
export const chosenItem = () => table.shown.find((item) => item.id === table.chosen);
export const linkTo = (id) => new URL(link({ open: id }), location.href).href;
