// The data of the exporter: rows by scope, alerts, and the age of both.

import { DECLARED } from "./declared.js";
import { STATES, numeral, stateWords, unitOf, whyWords } from "./words.js";

const RATE_S = 10;
const ALERTS = 200;

export const desk = {
  fields: {},                         // field -> its place in a row
  labels: [],                         // fields that the filter searches
  sparkS: 600,                        // length of a row's spark
  sampled: [],                        // times of the sparks' samples, s; the first is at the sparks' beginning or before
  status: null,
  receivedAt: -Infinity,              // performance.now() of the latest message
  rows: { placement: new Map(), campaign: new Map(), creative: new Map(), app: new Map() },   // id -> row
  alerts: [],                         // the latest first
  received: [],                       // [now_s, received]
  currency: null,                     // of all plans, if they agree
  sparks: 0,                          // grows with every sample
  tiers: new Map(),                   // state -> its place in the order of what needs attention
  dirty: true,                        // rows must be filtered and ordered again
};

export const text = (row, field) => row.v[desk.fields[field]] ?? null;
export const number = (row, field) => row.n[desk.fields[field]] ?? NaN;
export const nowMs = () => (desk.status ? desk.status.now_s * 1000 + performance.now() - desk.receivedAt : Date.now());

// A flight delivers nothing after its end, even if pixels still come. The delivery of a plan that came late is unknown.
export const delivered = (row) => row.delivered ?? number(row, text(row, "delivery.booked") === null ? "flight.impressions" : "delivery.delivered");
export const short = (row) => row.short ?? Math.max(0, number(row, "delivery.short_by"));
/** Money that is missing now, money that will be missing at the flight's end, and money of impressions in blocked content. */
export const stake = (row) => row.stake ?? number(row, "delivery.at_stake");
export const stakeEnd = (row) => row.stakeEnd ?? number(row, "delivery.at_stake_end");
export const blockedMoney = (row) => row.blockedMoney ?? number(row, "delivery.blocked_at_stake");
/** States that need no action. */
export const QUIET = new Set(["on_track", "complete", "not_started", "paused"]);
export const isQuiet = (row) => QUIET.has(row.state) && blocked(row) === 0;
/** Impressions in blocked content; NaN if the number is not known. */
export const blocked = (row) => number(row, "flight.blocked_impressions");
export const currencyOf = (row) => text(row, "delivery.currency");

// An id may be `constructor`: only the message's own properties count.
const own = (table, id, otherwise) => (Object.hasOwn(table, id) ? table[id] : otherwise);

export function stateOf(text) {
  return text !== null && text !== undefined && Object.hasOwn(STATES, text) ? text : "none";
}
/** The state that a row shows: `none` without a plan, `unjudged` unless `delivery.judged` is 1. An absent one is not known, never judged. */
export const shownState = (state, judged) => ((state ?? null) === null || judged === "1" ? stateOf(state) : "unjudged");
/** The words for a row's state, with the reason if it is not judged. */
export const rowWords = (row) => stateWords(row.state) + (row.state === "unjudged" ? whyWords(text(row, "delivery.unjudged_reason")) : "");
/** The name of the silent unit for which a row is not judged; empty without one. */
export const silentUnit = (row) => (row.state === "unjudged" ? unitOf(text(row, "delivery.unjudged_by") ?? "")[0] : "");

function take(scope, id, cells) {
  const rows = desk.rows[scope];
  let row = rows.get(id);
  if (!row) {
    rows.set(id, (row = { scope, id, v: [], n: [], spark: [], path: null, search: "", state: "none" }));
    desk.dirty = true;
  }
  for (const place in cells) {
    row.v[place] = cells[place];
    row.n[place] = numeral(cells[place]);
  }
  const state = shownState(text(row, "delivery.state"), text(row, "delivery.judged"));
  if (state !== row.state) { row.state = state; desk.dirty = true; }
  row.search = [id, ...desk.labels.map((label) => text(row, label) ?? ""), rowWords(row), silentUnit(row)].join("\n").toLowerCase();
}

function takeStatus(message) {
  const status = (desk.status = message.status);
  desk.receivedAt = performance.now();
  if (Number.isFinite(status.received)) desk.received.push([status.now_s, status.received]);
  while (desk.received.length > 2 && desk.received[0][0] < status.now_s - RATE_S) desk.received.shift();
  desk.alerts = [...message.alerts].reverse().concat(desk.alerts).slice(0, ALERTS);
  const currencies = new Set();
  for (const rows of Object.values(desk.rows)) for (const row of rows.values()) if (currencyOf(row)) currencies.add(currencyOf(row));
  desk.currency = currencies.size === 1 ? [...currencies][0] : null;
}

/** Takes a message with everything, and drops the earlier data. */
export function all(message) {
  desk.fields = Object.fromEntries(message.fields.map((field, place) => [field, place]));
  desk.tiers = new Map(message.attention.flatMap((states, tier) => states.map((state) => [state, tier])));
  desk.labels = message.labels;
  desk.sparkS = message.spark_s;
  desk.sampled = message.sampled_s;
  desk.received.length = 0;
  desk.alerts = [];
  for (const [scope, rows] of Object.entries(desk.rows)) {
    rows.clear();
    for (const id of Object.keys(message.rows[scope])) {
      take(scope, id, message.rows[scope][id]);
      rows.get(id).spark = own(message.grown[scope], id, []);
    }
  }
  desk.sparks += 1;
  desk.dirty = true;
  takeStatus(message);
}

/** Takes a message with the changes since the last one. */
export function change(message) {
  const { sampled } = desk;
  if (message.grown) sampled.push(message.sampled_s);
  while (sampled.length > 2 && sampled[1] <= sampled.at(-1) - desk.sparkS) sampled.shift();
  for (const [scope, rows] of Object.entries(desk.rows)) {
    for (const id of message.gone[scope]) desk.dirty = rows.delete(id) || desk.dirty;
    for (const id of Object.keys(message.rows[scope])) take(scope, id, message.rows[scope][id]);
    if (!message.grown) continue;
    for (const row of rows.values()) {
      row.spark.push(own(message.grown[scope], row.id, 0));
      while (row.spark.length >= sampled.length) row.spark.shift();
      row.path = null;
    }
  }
  if (message.grown) desk.sparks += 1;
  takeStatus(message);
}

/** The impressions of a row in the seconds before the latest sample. A step that began earlier counts in part. */
export function lately(row, seconds = desk.sparkS) {
  const { spark } = row, { sampled } = desk, since = sampled.at(-1) - seconds;
  let impressions = 0;
  for (let back = 1; back <= spark.length && sampled.at(-back) > since; back += 1) {
    const [from, to] = [sampled.at(-back - 1), sampled.at(-back)];
    impressions += (spark.at(-back) * (to - Math.max(from, since))) / (to - from);
  }
  return spark.length ? Math.round(impressions) : NaN;
}

// ------------------------------------------------------------------ sums

/** The fields that add up: those of columns, and the field that a sum's bar and pacing need. */
const SUMMED = [...DECLARED.filter(({ adds }) => adds).map(({ field }) => field), "delivery.expected"];

/** A row that sums other rows; columns draw it like a row. */
export const newSum = (key, title) => ({ sum: true, id: key, title, v: [], n: [], spark: [], path: null, sparks: -1, rows: [], state: "none" });

/** Adds rows up. Fields that do not add up (reach, rates) stay empty, and so does money of several currencies. A row without a pacing is not in the sum's pacing. */
export function addUp(sum, rows) {
  const places = SUMMED.map((field) => desk.fields[field]), totals = places.map(() => NaN);
  const currencies = new Set(), at = (field) => desk.fields[field];
  const plus = (so, one) => (Number.isFinite(one) ? (Number.isNaN(so) ? one : so + one) : so);
  let due = 0, done = 0, all = NaN, lacking = NaN, money = NaN, later = NaN, unpaid = NaN;
  for (const row of rows) {
    for (let place = 0; place < places.length; place += 1) totals[place] = plus(totals[place], row.n[places[place]]);
    const [expected, actual] = [row.n[at("delivery.expected")], row.n[at("delivery.delivered")]];
    if (expected > 0 && Number.isFinite(actual) && row.state !== "unjudged" && Number.isFinite(row.n[at("delivery.indicator")])) { due += expected; done += actual; }
    const currency = currencyOf(row);
    if (currency) currencies.add(currency);
    all = plus(all, delivered(row));
    unpaid = plus(unpaid, blockedMoney(row));
    if (row.state === "unjudged") continue;  // its counts add up, but its pacing and shortfall allow no action
    lacking = plus(lacking, short(row));
    money = plus(money, stake(row));
    later = plus(later, stakeEnd(row));
  }
  const one = currencies.size === 1;
  places.forEach((place, nth) => { sum.n[place] = totals[nth]; });
  if (!one) sum.n[at("flight.cost")] = NaN;
  sum.n[at("delivery.indicator")] = due ? done / due : NaN;
  sum.v[at("delivery.currency")] = one ? [...currencies][0] : null;
  Object.assign(sum, { rows, delivered: all, short: lacking, stake: one ? money : NaN, stakeEnd: one ? later : NaN, blockedMoney: one ? unpaid : NaN, hits: rows.filter(blocked).length, under: rows.filter((row) => row.state === "under").length, waiting: rows.filter((row) => row.state === "unjudged").length });
  if (sum.sparks === desk.sparks && sum.sparkOf === rows.length) return;
  Object.assign(sum, { sparks: desk.sparks, sparkOf: rows.length, path: null });
  const longest = rows.reduce((most, row) => Math.max(most, row.spark.length), 0);
  sum.spark = new Array(longest).fill(0);
  for (const { spark } of rows) for (let place = 0, shift = longest - spark.length; place < spark.length; place += 1) sum.spark[shift + place] += spark[place];
}
