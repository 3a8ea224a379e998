// The columns of declared.js with their values and drawings, for the `?` sheet, the table, the cards and the CSV.

import { DECLARED, GROUPS, ORDERS } from "./declared.js";
import { blocked, blockedMoney, currencyOf, delivered, desk, isQuiet, lately, number, rowWords, short, silentUnit, stake, stakeEnd, stateOf, text, nowMs } from "./data.js";
import { make, setText } from "./dom.js";
import { NULL, SEVERITY, amount, fixed, left, money, moment, percent, shares, span, stateWords, whole } from "./words.js";
import { link, view } from "./view.js";

const SPARK_FLOOR = 10;               // impressions in ten seconds at the top of a quiet row: one more or less is no peak
const SPARK_STEP_S = 10, SPARK_PX = 60;

const field = (name) => (row) => number(row, name);
/** The values of columns that show more than their field. */
const VALUES = {
  state: (row) => SEVERITY[row.state], id: (row) => row.title ?? row.id, stake, stake_end: stakeEnd, short, delivered, unpaid: blockedMoney,
  progress: (row) => number(row, "delivery.delivered") / number(row, "delivery.booked"), spark: (row) => lately(row, 60),
};
const LEFT = ["state", "name", "label", "bar", "curve"];
/** By form of a column: the text of a cell, its text in CSV, and its drawing, if any. */
const FORMS = {
  count: (value) => ({ text: (row) => whole(value(row)), csv: (row) => String(Math.round(value(row))) }),
  parts: (value) => ({ text: (row) => shares(value(row)) }),
  number: (value) => ({ text: (row) => fixed(value(row)) }),
  share: (value) => ({ text: (row) => percent(value(row)), csv: (row) => fixed(100 * value(row)) }),
  money: (value) => ({ text: (row) => (desk.currency ? amount(value(row)) : money(value(row), currencyOf(row))) }),
  label: (value, name) => ({ value: (row) => text(row, name) ?? "", text: (row) => text(row, name) ?? (row.sum ? "" : NULL), soft: true }),
  state: () => ({ text: rowWords, draw: drawState }),
  name: (value) => ({ text: value, draw: drawName }),
  time: (value) => ({ text: ends, csv: (row) => iso(value(row)) }),
  bar: (value) => ({ text: (row) => percent(value(row)), csv: (row) => fixed(100 * value(row)), draw: drawProgress }),
  curve: () => ({ text: (row) => whole(lately(row)), csv: (row) => fixed(lately(row), 0), draw: drawSpark }),
};
/** A column of a lack or a fault: its cell is empty at 0. */
const lack = (column) => ({ ...column, text: (row) => (column.value(row) === 0 ? "" : column.text(row)) });

export const COLUMNS = DECLARED.map((declared) => {
  const value = VALUES[declared.key] ?? field(declared.field);
  const column = { unit: "", ...declared, value, left: LEFT.includes(declared.form), ...FORMS[declared.form](value, declared.field) };
  return declared.lack ? lack(column) : column;
});
const BY_KEY = new Map(COLUMNS.map((column) => [column.key, column]));
export const column = (key) => BY_KEY.get(key);
export const unitOf = (one) => (one.unit === "money" ? desk.currency ?? "" : one.unit);
/** The columns by subject, for the choice of columns. */
export const COLUMN_GROUPS = Object.fromEntries(GROUPS.map((group) => [group, COLUMNS.filter((one) => one.group === group).map(({ key }) => key)]));
export const CARD = ["state", "id", "pacing", "stake", "stake_end", "ends", "progress"].map((key) => BY_KEY.get(key));

const iso = (ms) => (Number.isFinite(ms) ? new Date(ms).toISOString() : "");

/** The columns that fit into a width, the most important first; or those that the reader has chosen. */
export function columnsFor(width) {
  const inView = view.view !== "placements" ? (one) => one.key !== "campaign" && one.key !== "platform" && one.key !== "station" : () => true;
  const chosen = new Set(view.cols.split(",").filter((key) => BY_KEY.has(key)));
  if (chosen.size) return COLUMNS.filter((one) => one.rank === 0 || chosen.has(one.key));
  const fitting = new Set();
  let room = width;
  for (const one of COLUMNS.filter(inView).toSorted((a, b) => a.rank - b.rank)) {
    if ((room -= one.px) < 0 && one.rank > 2) break;
    fitting.add(one);
  }
  return COLUMNS.filter((one) => fitting.has(one));
}

function ends(row) {
  if (row.sum) return "";
  const now = nowMs(), start = number(row, "delivery.start_ms"), end = number(row, "delivery.end_ms");
  if (!Number.isFinite(end)) return NULL;
  if (now < start) return `begins ${left((start - now) / 1000)}`;
  return end > now ? left((end - now) / 1000) : `${span((now - end) / 1000)} ago`;
}

function drawState(cell, row) {
  cell.badge ??= cell.appendChild(make("span", "state"));
  cell.unit ??= cell.appendChild(make("bdi", "unit"));
  // The worst word comes first, in the worst colour.
  const hits = blocked(row), unit = silentUnit(row), bad = !row.sum && hits > 0;
  const cause = row.state === "unjudged" ? (unit ? `${unit} is silent` : rowWords(row).split(": ")[1] ?? "") : "";
  const words = row.sum ? sumState(row)[0] : bad ? `blocked ${whole(hits)}` : stateWords(row.state), shown = row.sum ? (row.under || row.hits ? "sum-bad" : "sum") : bad ? "blocked" : row.state;
  if (cell.badge.dataset.state !== shown) cell.badge.dataset.state = shown;
  setText(cell.badge, words);
  setText(cell.unit, row.sum ? sumState(row).slice(1).join(", ") : bad ? [stateWords(row.state), cause].filter(Boolean).join(": ") : cause);
  const since = number(row, row.state === "unjudged" ? "delivery.unjudged_since_ms" : "delivery.since_ms");
  const title = [Number.isFinite(since) ? `since ${moment(since)}` : "", unit ? `${unit} is silent; ${stateWords(stateOf(text(row, "delivery.state")))} until then` : "", hits ? `${whole(hits)} impressions in blocked content` : ""].filter(Boolean).join("; ");
  if (cell.title !== title) cell.title = title;
}

/** The words of a sum, the worst first. Rows that are not judged are in its counts alone. */
function sumState({ rows, under, hits, waiting, group }) {
  if (group === "well") return [""];
  const words = [hits && `${whole(hits)} blocked`, under && `${whole(under)} under`, waiting && `${whole(waiting)} not judged`].filter(Boolean);
  return words.length && (hits || under) ? words : [`${whole(rows.length)} rows`, ...words];
}

function drawName(cell, row) {
  cell.link ??= cell.appendChild(Object.assign(make("a"), { tabIndex: -1, dir: "auto" }));
  cell.fold ??= cell.appendChild(Object.assign(make("button", "fold"), { type: "button", tabIndex: -1, dir: "auto" }));
  const name = row.title ?? row.id, sum = Boolean(row.sum), href = sum ? "" : link({ open: row.id });
  if (cell.link.hidden !== sum) cell.link.hidden = sum;
  const foldable = sum && row.group !== undefined;
  cell.fold.hidden = !sum;
  cell.fold.disabled = !foldable;
  setText(sum ? cell.fold : cell.link, foldable ? `${row.folded ? "▸" : "▾"} ${name}` : name);
  if (foldable) cell.fold.ariaExpanded = String(!row.folded);
  else cell.fold.removeAttribute("aria-expanded");
  if (!sum && cell.href !== href) cell.link.setAttribute("href", (cell.href = href));
  if (cell.title !== name) cell.title = name;
}

function drawProgress(cell, row) {
  cell.track ??= cell.appendChild(make("span", "track", make("i"), make("b")));
  const booked = number(row, "delivery.booked"), done = number(row, "delivery.delivered"), due = number(row, "delivery.expected");
  const key = `${done}/${due}/${booked}`;
  if (cell.key === key) return;
  cell.key = key;
  const part = (value) => `${Math.min(100, (100 * value) / booked).toFixed(2)}%`;
  cell.setAttribute("aria-label", booked > 0 ? `${percent(done / booked)} of booked delivered, ${percent(due / booked)} due` : "no plan");
  cell.track.style.display = booked > 0 ? "" : "none";
  if (!(booked > 0)) return;
  const [bar, line] = cell.track.children;
  bar.style.width = Number.isFinite(done) ? part(done) : "0";
  line.style.display = Number.isFinite(due) ? "" : "none";
  if (Number.isFinite(due)) line.style.left = part(due);
}

function drawSpark(cell, row) {
  if (!cell.path) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${SPARK_PX} 18`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "spark");
    svg.setAttribute("aria-hidden", "true");
    cell.path = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    cell.appendChild(svg);
  }
  row.path ??= sparkPath(row.spark);
  if (cell.key === row.path) return;
  cell.path.setAttribute("d", (cell.key = row.path));
  cell.setAttribute("aria-label", row.path ? `${whole(lately(row))} impressions in ${span(sparkLength(row))}` : "no curve yet");
}

const sparkLength = ({ spark }) => Math.min(desk.sparkS, desk.sampled.at(-1) - desk.sampled.at(-spark.length - 1));

/** The line of a spark: the growth rate from sample to sample, by the time of each sample. */
export function sparkPath(steps, sampled = desk.sampled) {
  if (steps.length < 2) return "";
  const times = sampled.slice(-steps.length), since = times.at(-1) - desk.sparkS;
  const rates = steps.map((step, place) => (SPARK_STEP_S * step) / (times[place] - sampled.at(place - steps.length - 1)));
  const top = Math.max(SPARK_FLOOR, ...rates);
  const across = (at) => ((SPARK_PX * (at - since)) / desk.sparkS).toFixed(1);
  return "M" + rates.map((rate, place) => `${across(times[place])} ${(17 - (16 * rate) / top).toFixed(1)}`).join("L");
}

// ------------------------------------------------------------------ order

/** The place of a row in the most urgent order: the exporter's tier, then the amount at stake. This is money if all plans have one currency, else impressions. A sum has the tier of its worst row. */
function attention(row) {
  const tier = row.sum ? Math.min(...row.rows.map(tierOf)) : tierOf(row), most = desk.currency ? stake(row) : short(row);
  return Number.isNaN(most) ? { row, tier: tier + 0.5, value: delivered(row) } : { row, tier, value: most };
}

const tierOf = (row) => desk.tiers.get(blocked(row) ? "blocked" : row.state) ?? 0;

export { ORDERS };

/** The order of the view: its column and its direction; an empty column is the most urgent order. */
export function ordered() {
  const down = view.sort.startsWith("-"), key = down ? view.sort.slice(1) : view.sort;
  return BY_KEY.has(key) ? { key, down } : { key: "", down: true };
}

/** Rows in the order of the view; rows without a value are last in both directions. */
export function inOrder(rows) {
  const { key, down } = ordered(), sign = down ? -1 : 1, value = key && BY_KEY.get(key).value;
  const keyed = rows.map(value ? (row) => ({ row, tier: 0, value: value(row) }) : attention);
  return keyed.sort((a, b) => {
    if (a.tier !== b.tier) return a.tier - b.tier;
    if (a.value === b.value) return a.row.id < b.row.id ? -1 : 1;
    const [none, other] = [Number.isNaN(a.value), Number.isNaN(b.value)];
    if (none || other) return none - other || (a.row.id < b.row.id ? -1 : 1);
    return a.value < b.value ? -sign : sign;
  }).map(({ row }) => row);
}
