// The columns: name, unit, meaning, value. The `?` sheet, the table, the cards and the CSV are made of them.

import { blocked, blockedMoney, currencyOf, delivered, desk, isQuiet, lately, number, rowWords, short, silentUnit, stake, stakeEnd, stateOf, text, nowMs } from "./data.js";
import { make, setText } from "./dom.js";
import { NULL, SEVERITY, amount, fixed, left, money, moment, percent, shares, span, stateWords, whole } from "./words.js";
import { link, view } from "./view.js";

const SPARK_FLOOR = 10;               // impressions in ten seconds at the top of a quiet row: one more or less is no peak
const SPARK_STEP_S = 10, SPARK_PX = 60;

const count = (key, title, unit, means, px, rank, value) => ({ key, title, unit, means, px, rank, down: true, value, text: (row) => whole(value(row)), csv: (row) => String(Math.round(value(row))) });
/** A column of what is missing or wrong: where nothing is, the cell stays empty. */
const lack = (column) => ({ ...column, text: (row) => (column.value(row) === 0 ? "" : column.text(row)) });
const field = (name) => (row) => number(row, name);
const label = (key, title, means, name, px, rank) => ({
  key, title, unit: "", means, px, rank, left: true, soft: true, value: (row) => text(row, name) ?? "", text: (row) => text(row, name) ?? (row.sum ? "" : NULL),
});
const share = (key, title, means, px, rank, name) => ({
  key, title, unit: "%", means, px, rank, down: true, value: field(name), text: (row) => percent(number(row, name)), csv: (row) => fixed(100 * number(row, name)),
});
const ofBooked = (row) => number(row, "delivery.delivered") / number(row, "delivery.booked");
const inMoney = (key, title, means, px, rank, value) => ({
  key, title, unit: "money", means, px, rank, down: true, value,
  text: (row) => (desk.currency ? amount(value(row)) : money(value(row), currencyOf(row))),
});

export const COLUMNS = [
  { key: "state", title: "state", unit: "", means: "The delivery state (below), behind the impressions in content that the plan blocks.", px: 164, rank: 0, left: true, value: (row) => SEVERITY[row.state], text: rowWords, draw: drawState },
  { key: "id", title: "placement", unit: "", means: "The placement's, campaign's, creative's or app's id; opens it.", px: 150, rank: 0, left: true, value: (row) => row.title ?? row.id, text: (row) => row.title ?? row.id, draw: drawName },
  label("campaign", "campaign", "The campaign that the placement belongs to.", "campaign_id", 92, 3.5),
  lack(inMoney("stake", "at stake", "Short by, at the plan's price per thousand impressions (CPM); of a campaign its placements' sum.", 84, 1, stake)),
  lack(inMoney("stake_end", "by the end", "What is projected to lack of the booking at the flight's end, at the plan's price (CPM).", 92, 2, stakeEnd)),
  { ...share("pacing", "pacing", "Delivered impressions as a share of those due by now: 100 % is on plan.", 76, 1.5, "delivery.indicator"), down: false },
  lack(count("short", "short by", "impressions", "Impressions that are due and not delivered. Sums add what is short; what is ahead elsewhere does not offset it.", 92, 4, short)),
  { key: "ends", title: "ends in", csvTitle: "ends at (UTC)", unit: "", means: "Time until the flight's end, by the clock.", px: 100, rank: 3, value: field("delivery.end_ms"), text: ends, csv: (row) => iso(number(row, "delivery.end_ms")) },
  count("delivered", "delivered", "impressions", "Impressions of the flight up to its end; without a plan, all.", 102, 5, delivered),
  count("booked", "booked", "impressions", "Impressions that the plan books.", 102, 6, field("delivery.booked")),
  { key: "progress", title: "of booked", unit: "%", means: "Bar: delivered as a share of booked. Line: what is due by now.", px: 110, rank: 9, left: true, down: true, value: ofBooked, text: (row) => percent(ofBooked(row)), csv: (row) => fixed(100 * ofBooked(row)), draw: drawProgress },
  count("hour", "last hour", "impressions/hour", "Impressions of the last hour.", 106, 8, field("1h.impressions")),
  count("needed", "needed", "impressions/hour", "Impressions needed in each remaining hour that is not paused.", 106, 7, field("delivery.required_rate")),
  count("projected", "projected", "impressions", "Impressions at the flight's end if delivery goes on as in the last hour.", 92, 17, field("delivery.projected")),
  inMoney("cost", "cost", "Delivered, at the plan's price per thousand impressions (CPM).", 88, 11, field("flight.cost")),
  { key: "spark", title: "last 10 min", unit: "impressions", means: "Impressions every ten seconds. Sorts by the latest minute.", px: 110, rank: 10, left: true, down: true, value: (row) => lately(row, 60), text: (row) => whole(lately(row)), csv: (row) => fixed(lately(row), 0), draw: drawSpark },
  share("completion", "completed", "Share of the plays started in the last hour that were completed, once they have had time to end.", 88, 12, "1h.mature_completion_rate"),
  count("reach", "reach", "listeners", "Listeners with consent, each counted once in the flight.", 84, 13, field("flight.reach")),
  { key: "frequency", title: "frequency", unit: "plays/listener", means: "Plays by each of these listeners, on average.", px: 92, rank: 14, down: true, value: field("flight.frequency"), text: (row) => fixed(number(row, "flight.frequency")) },
  { key: "conversions", title: "conversions", unit: "", means: "Conversions credited in the flight.", px: 92, rank: 15, down: true, value: field("flight.conversions"), text: (row) => shares(number(row, "flight.conversions")) },
  inMoney("cpa", "cost per conversion", "Cost divided by conversions.", 96, 16, field("flight.cost_per_acquisition")),
  lack(count("blocked", "blocked", "impressions", "Impressions in content that the plan blocks.", 92, 20, (row) => number(row, "flight.blocked_impressions"))),
  inMoney("unpaid", "blocked, money", "Impressions in blocked content, at the plan's price per thousand (CPM). They will not be paid.", 92, 20.5, blockedMoney),
  label("platform", "platform", "The platform of the latest pixel.", "platform", 110, 18),
  label("station", "station", "The station of the latest pixel.", "station", 100, 19),
  label("basis", "basis", "What kind of impressions these are.", "impression_basis", 120, 21),
  count("deliveries", "deliveries", "", "Deliveries that a host reports, in the flight. They are no impressions.", 92, 22, field("flight.deliveries")),
  share("through", "play-through", "Plays that a device itself has begun, as a share of the deliveries of the flight.", 92, 23, "flight.play_through"),
  count("households", "households", "households", "Households with consent, each counted once in the flight.", 92, 24, field("flight.household_reach")),
  { key: "by_household", title: "by household", unit: "conversions", means: "Conversions of the flight that a touch of their household joins, for their own listener has none.", px: 106, rank: 25, down: true, value: field("flight.conversions_by_household"), text: (row) => shares(number(row, "flight.conversions_by_household")) },
  count("downloads_calendar", "downloads, day", "downloads", "Downloads of the flight, one a client and episode a calendar day; final minutes alone.", 112, 26, field("flight.downloads_calendar")),
  count("downloads_first_touch", "downloads, first", "downloads", "Downloads of the flight, one a client and episode in the 24 h from the first on; final minutes alone.", 112, 27, field("flight.downloads_first_touch")),
  count("downloads_last_touch", "downloads, last", "downloads", "Downloads of the flight that none of the same client and episode comes before within 24 h; final minutes alone.", 112, 28, field("flight.downloads_last_touch")),
  count("deliveries_calendar", "deliveries, day", "deliveries", "Deliveries of the flight, one a client and ad a calendar day; final minutes alone.", 112, 29, field("flight.deliveries_calendar")),
  count("deliveries_first_touch", "deliveries, first", "deliveries", "Deliveries of the flight, one a client and ad in the 24 h from the first on; final minutes alone.", 112, 30, field("flight.deliveries_first_touch")),
  count("deliveries_last_touch", "deliveries, last", "deliveries", "Deliveries of the flight that none of the same client and ad comes before within 24 h; final minutes alone.", 112, 31, field("flight.deliveries_last_touch")),
];
const BY_KEY = new Map(COLUMNS.map((column) => [column.key, column]));
export const column = (key) => BY_KEY.get(key);
export const unitOf = (one) => (one.unit === "money" ? desk.currency ?? "" : one.unit);
/** The columns by what they are about, as the choice of columns shows them. */
export const COLUMN_GROUPS = {
  Pacing: ["pacing", "short", "ends", "delivered", "booked", "progress", "hour", "needed", "projected", "spark", "completion"],
  Money: ["stake", "stake_end", "cost", "cpa", "blocked", "unpaid"],
  People: ["reach", "frequency", "households", "conversions", "by_household"],
  Podcast: ["deliveries", "through", ...COLUMNS.map(({ key }) => key).filter((key) => /^(downloads|deliveries)_/.test(key))],
  Labels: ["campaign", "platform", "station", "basis"],
};
export const CARD = ["state", "id", "pacing", "stake", "stake_end", "ends", "progress"].map((key) => BY_KEY.get(key));

const iso = (ms) => (Number.isFinite(ms) ? new Date(ms).toISOString() : "");

/** The columns that fit into a width, the dearest first; or those that the reader has chosen. */
export function columnsFor(width) {
  const only = view.view !== "placements" ? (one) => one.key !== "campaign" && one.key !== "platform" && one.key !== "station" : () => true;
  const chosen = new Set(view.cols.split(",").filter((key) => BY_KEY.has(key)));
  if (chosen.size) return COLUMNS.filter((one) => one.rank === 0 || chosen.has(one.key));
  const fitting = new Set();
  let room = width;
  for (const one of COLUMNS.filter(only).toSorted((a, b) => a.rank - b.rank)) {
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
  const stands = row.state === "unjudged" ? (unit ? `${unit} is silent` : rowWords(row).split(": ")[1] ?? "") : "";
  const words = row.sum ? sumState(row)[0] : bad ? `blocked ${whole(hits)}` : stateWords(row.state), shown = row.sum ? (row.under || row.hits ? "sum-bad" : "sum") : bad ? "blocked" : row.state;
  if (cell.badge.dataset.state !== shown) cell.badge.dataset.state = shown;
  setText(cell.badge, words);
  setText(cell.unit, row.sum ? sumState(row).slice(1).join(", ") : bad ? [stateWords(row.state), stands].filter(Boolean).join(": ") : stands);
  const since = number(row, row.state === "unjudged" ? "delivery.unjudged_since_ms" : "delivery.since_ms");
  const title = [Number.isFinite(since) ? `since ${moment(since)}` : "", unit ? `${unit} is silent; ${stateWords(stateOf(text(row, "delivery.state")))} until then` : "", hits ? `${whole(hits)} impressions in blocked content` : ""].filter(Boolean).join("; ");
  if (cell.title !== title) cell.title = title;
}

/** The words of a sum, the worst first. Rows that are not judged are in its counts, and in nothing that judges. */
function sumState({ rows, under, hits, waiting, group }) {
  if (group === "well") return [""];
  const found = [hits && `${whole(hits)} blocked`, under && `${whole(under)} under`, waiting && `${whole(waiting)} not judged`].filter(Boolean);
  return found.length && (hits || under) ? found : [`${whole(rows.length)} rows`, ...found];
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

/** The line of growth from sample to sample, by the time of each, and as high as it was fast. */
export function sparkPath(steps, sampled = desk.sampled) {
  if (steps.length < 2) return "";
  const times = sampled.slice(-steps.length), since = times.at(-1) - desk.sparkS;
  const rates = steps.map((step, place) => (SPARK_STEP_S * step) / (times[place] - sampled.at(place - steps.length - 1)));
  const top = Math.max(SPARK_FLOOR, ...rates);
  const across = (at) => ((SPARK_PX * (at - since)) / desk.sparkS).toFixed(1);
  return "M" + rates.map((rate, place) => `${across(times[place])} ${(17 - (16 * rate) / top).toFixed(1)}`).join("L");
}

// ------------------------------------------------------------------ order

/** By the exporter's tiers of what needs attention, each by what is at stake: money where all plans have one currency, else impressions. A sum stands where its worst row does. */
function attention(row) {
  const tier = row.sum ? Math.min(...row.rows.map(tierOf)) : tierOf(row), most = desk.currency ? stake(row) : short(row);
  return Number.isNaN(most) ? { row, tier: tier + 0.5, value: delivered(row) } : { row, tier, value: most };
}

const tierOf = (row) => desk.tiers.get(blocked(row) ? "blocked" : row.state) ?? 0;

export const ORDERS = { "": "needs attention first", "-delivered": "most delivered first", pacing: "least pacing first", "-stake": "most at stake first", "-stake_end": "most at stake by the end first", ends: "next to end first", id: "by name" };

/** The order of the view: its column and its direction; no column: what needs attention. */
export function ordered() {
  const down = view.sort.startsWith("-"), key = down ? view.sort.slice(1) : view.sort;
  return BY_KEY.has(key) ? { key, down } : { key: "", down: true };
}

/** Rows in the order of the view; what has no value comes last, whichever way. */
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
