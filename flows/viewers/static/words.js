// The vocabulary: one name, one scale and one unit for each quantity, on the page and in the `?` sheet.

import { ROW_REASONS, STATES } from "./declared.js";

export { ROW_REASONS, STATES, UNKNOWN_BEFORE } from "./declared.js";
/** The section of the documents with advice on a state, for states that need action. */
const ADVICE = {
  under: "runbook.md#audiopixelunderdelivery",
  over: "runbook.md#audiopixeloverdelivery",
  complete: "runbook.md#audiopixeloverdelivery",
  blocked: "runbook.md#audiopixelbrandsafetybreach",
  unjudged: "reading-the-page.md#a-feed-that-is-silent",
  blind: "runbook.md#audiopixeldeliverynotjudged",
  silent: "runbook.md#audiopixelfeedsilent",
  held: "runbook.md#audiopixelcollectorhold",
  none: "plans.md",
  unknown_before: "reading-the-page.md#a-flight-that-had-begun-before",
  ended_unknown: "reading-the-page.md#a-flight-that-had-begun-before",
  at_risk: "reading-the-page.md#the-states",
  ended_short: "reading-the-page.md#the-states",
};
export const advice = (what) => (ADVICE[what] ? `/docs/${ADVICE[what]}` : null);
export const stateWords = (state) => STATES[state][0];
/** The text after `not judged`, such as `: feed silent`; empty for a reason without words. */
export const whyWords = (reason) => (reason && Object.hasOwn(ROW_REASONS, reason) ? `: ${ROW_REASONS[reason]}` : "");
/** The name and the kind of a unit of the feed, `kind:name`. */
export function unitOf(key) {
  const at = key.indexOf(":");
  return at < 0 ? [key, ""] : [key.slice(at + 1), key.slice(0, at)];
}
/** A unit in words: `programmatic (platform)`. */
export const unitWords = (key) => { const [name, kind] = unitOf(key); return kind ? `${name} (${kind})` : name; };
export const SEVERITY = Object.fromEntries(Object.keys(STATES).map((state, rank) => [state, rank]));

const grouped = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const cents = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export const NULL = "–";
export const numeral = (value) => (value === null || value === undefined || value === "" ? NaN : Number(value));
export const whole = (value) => (Number.isFinite(value) ? grouped.format(value) : NULL);
export const fixed = (value, places = 2) => (Number.isFinite(value) ? value.toFixed(places) : NULL);
export const percent = (value, places = 0) => (Number.isFinite(value) ? `${(value * 100).toFixed(places)} %` : NULL);
/** A count that may hold shares of a conversion. */
export const shares = (value) => (Number.isInteger(value) ? whole(value) : fixed(value));
export const amount = (value) => (Number.isFinite(value) ? (value && Math.abs(value) < 1000 ? cents : grouped).format(value) : NULL);
export const money = (value, currency) => (Number.isFinite(value) && currency ? `${currency} ${amount(value)}` : amount(value));

/** `0.4 s`, `12 s`, `35 min`, `5 h`, `354 d`. */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return NULL;
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${grouped.format(Math.round(s / 86400))} d`;
}

/** Time that is left, in two units: `2 d 8 h`, `8 h 12 min`, `12 min`. */
export function left(seconds) {
  if (!Number.isFinite(seconds)) return NULL;
  const minutes = Math.max(0, Math.round(seconds / 60));
  const [days, hours, rest] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24, minutes % 60];
  if (days) return `${whole(days)} d ${hours} h`;
  return hours ? `${hours} h ${rest} min` : `${rest} min`;
}

const dated = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
const thisYear = new Intl.DateTimeFormat("en-GB", dated), otherYear = new Intl.DateTimeFormat("en-GB", { ...dated, year: "numeric" });

/** `25 Nov, 16:04 UTC`: always with date and zone, and with the year if it is not the present one. */
export function moment(ms) {
  if (!Number.isFinite(ms) || Math.abs(ms) > 8.64e15) return NULL;
  const at = new Date(ms);
  return (at.getFullYear() === new Date().getFullYear() ? thisYear : otherYear).format(at);
}

const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
/** A moment in short: `10:55` today, else with its day. */
export function clock(ms, nowMs) {
  if (!Number.isFinite(ms) || Math.abs(ms) > 8.64e15) return NULL;
  return new Date(ms).toDateString() === new Date(nowMs).toDateString() ? time.format(ms) : moment(ms);
}

/** The moment, and how long ago. */
export function since(ms, nowMs) {
  if (!Number.isFinite(ms)) return NULL;
  return `${moment(ms)} (${ms > nowMs ? `in ${left((ms - nowMs) / 1000)}` : `${span((nowMs - ms) / 1000)} ago`})`;
}
