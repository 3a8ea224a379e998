// The bar: the age of the numbers, whether delivery is judged, the silent feeds, and the same in the tab's title and icon.

import { blocked, blockedMoney, currencyOf, desk, nowMs, number, stake, stakeEnd } from "./data.js";
import { UNJUDGED } from "./declared.js";
import { $, make, say, setParts, setText } from "./dom.js";
import { NULL, advice, clock, money, numeral, percent, since, span, whole } from "./words.js";

const SLOW_S = 5, OLD_S = 300, WAIT_MS = 5000;
const began = performance.now();
let lostAt = null, spokenKind = "";

/** Notes that the connection was lost at a moment of performance.now(), or is back (null). */
export function connection(at) {
  lostAt = at === null ? null : lostAt ?? at;
  freshness();
}

/** The state of the numbers: its kind, its level, and its words. */
function verdict() {
  const { status } = desk, now = performance.now(), silence = (now - desk.receivedAt) / 1000;
  if (status === null) return now - began < WAIT_MS ? ["connecting", "wait", "connecting"] : ["silent", "down", "the exporter does not answer"];
  if (lostAt !== null || silence > SLOW_S) return ["lost", "down", `connection to the exporter lost ${span(lostAt === null ? silence : (now - lostAt) / 1000)} ago`];
  if (!status.up) return [`redis ${status.error}`, "down", status.error.split(": ")[0]];
  if (status.flushed_s === null) return ["empty", "wait", "no flow has written yet"];
  const age = status.now_s - status.flushed_s + silence;
  if (age > status.stale_s) return ["stalled", "down", `stalled: nothing written for ${span(age)}`];
  if (age > SLOW_S) return ["slow", "slow", `slow: nothing written for ${span(age)}`];
  // Numbers that are written every second may be an hour old, and do not judge delivery either.
  const behind = status.watermark_s === null ? 0 : status.now_s - status.watermark_s + silence;
  if (behind > OLD_S) return ["behind", "slow", `behind: numbers of ${span(behind)} ago`];
  const silent = status.silence?.count ?? 0;
  return silent ? ["feed silent", "slow", `live, but ${whole(silent)} feed${silent === 1 ? " is" : "s are"} silent`] : ["live", "ok", "live"];
}

/** The reason why delivery is not judged now, and since when; null if it is judged. */
function unjudged(kind, now) {
  const { status } = desk;
  if (status === null || kind === "empty") return null;
  const sentence = (ms, reason) => `Delivery is not judged since ${since(ms, now)}: ${reason}. Do not change bids by these numbers.`;
  if (kind !== "lost" && !status.up && status.read_s) return sentence(status.read_s * 1000, "Redis does not answer");
  if (status.flushed_s !== null && now / 1000 - status.flushed_s > status.stale_s) return sentence(status.flushed_s * 1000, "the flow writes nothing");
  if (!status.judged) return sentence(status.unjudged_since_ms ?? NaN, UNJUDGED[status.unjudged_reason] ?? "the flow gives no reason");
  return kind === "lost" ? "These numbers are old: do not change bids by them." : null;
}

const NAMED = 3;

/** Units in words and elements: `a, b, c and 2 more (platform)`. Senders choose the names, so each has its own text direction. */
function units({ units: all, count }) {
  const first = all.slice(0, NAMED), kinds = new Set(first.map(([kind]) => kind)), sameKind = kinds.size === 1;
  const names = first.map(([kind, name]) => [make("bdi", "", name), sameKind ? "" : ` (${kind})`]);
  if (count > first.length) names.push([`${whole(count - first.length)} more`]);
  const parts = names.flatMap((name, place) => [place === 0 ? "" : place === names.length - 1 ? " and " : ", ", ...name]);
  return sameKind ? [...parts, ` (${[...kinds][0]})`] : parts;
}

/** The silent feeds, since when, and the consequence; null without silent feeds. */
function silence(now) {
  const silent = desk.status?.silence;
  if (!silent) return null;
  const { count, placements, money } = silent, single = placements === 1;
  const waiting = placements ? `${whole(placements)} placement${single ? " is" : "s are"} not judged; do not change bids by ${single ? "it" : "them"}.` : "No placement waits for it.";
  const worth = money ? ` ${count === 1 ? "It brings" : "They bring"} ${money} an hour.` : "";
  return [...units(silent), ` ${count === 1 ? "has" : "have"} been silent since ${since(silent.since_ms, now)}: this is the feed, not delivery. ${waiting}${worth}`];
}

export function freshness() {
  const { status } = desk, [kind, level, words] = verdict(), bar = $("bar");
  bar.dataset.level = level;
  if (spokenKind !== kind) {
    spokenKind = kind;
    say(words);
  }
  setText($("verdict"), words);
  $("verdict").title = status && !status.up ? status.error : words;
  const banner = unjudged(kind, nowMs());
  $("banner").hidden = banner === null;
  setText($("banner-words"), banner ?? "");
  const feeds = silence(nowMs());
  $("silence").hidden = feeds === null;
  setParts($("silence-words"), ...(feeds ?? []));
  signal(level, kind);
  if (status === null) return;
  const now = nowMs() / 1000;
  setText($("flushed"), status.flushed_s === null ? NULL : `${span(now - status.flushed_s)} ago`);
  setText($("watermark"), status.watermark_s === null ? NULL : `${span(now - status.watermark_s)} behind`);
  $("flushed").title = status.flushed_s === null ? "" : since(status.flushed_s * 1000, now * 1000);
  $("watermark").title = status.watermark_s === null ? "" : since(status.watermark_s * 1000, now * 1000);
  const { received } = desk, [first, last] = [received[0], received[received.length - 1]];
  setText($("rate"), received.length > 1 && last[0] > first[0] ? whole((last[1] - first[1]) / (last[0] - first[0])) : NULL);
  for (const [id, count] of [["repeated", status.repeated], ["rejected", status.rejected], ["invalid", status.invalid_traffic]]) {
    setText($(id), status.received ? percent(count / status.received, 2) : NULL);
  }
  setText($("pending"), whole(numeral(status.pending)));
}

/** Money by currency: `GBP 32 and EUR 5`; empty without money. */
function sumOf(rows, value) {
  const sums = new Map();
  for (const row of rows) if (value(row) > 0) sums.set(currencyOf(row), (sums.get(currencyOf(row)) ?? 0) + value(row));
  return [...sums].map(([currency, sum]) => (sum < 1 ? money(sum, currency) : `${currency ?? ""} ${whole(sum)}`.trim())).join(" and ");
}

const SHORT = new Set(["under", "at_risk"]);

/** Draws what a trader needs: the money short now and by the flights' end, of how many placements, and blocked content. */
export function drawMoney() {
  const rows = [...desk.rows.placement.values()], shortRows = rows.filter((row) => SHORT.has(row.state)), hits = rows.filter(blocked), parts = [];
  const now = sumOf(shortRows, stake), later = sumOf(shortRows, stakeEnd), ends = new Set(shortRows.map((row) => number(row, "delivery.end_ms")));
  const named = `${whole(shortRows.length)} placement${shortRows.length === 1 ? "" : "s"}`, by = ends.size === 1 ? clock([...ends][0], nowMs()) : "the flights' ends";
  if (shortRows.length) parts.push([now && `${now} short now`, later && `${later} by ${by}`, now || later ? `${named} under or at risk` : `${named} short`].filter(Boolean).join(", "));
  if (hits.length) parts.push(`${whole(hits.reduce((sum, row) => sum + blocked(row), 0))} impressions in blocked content${sumOf(hits, blockedMoney) && ` (${sumOf(hits, blockedMoney)})`}`);
  setText($("money"), parts.join("; ") || (rows.length ? "No placement is short" : ""));
  $("money").dataset.bad = String(parts.length > 0);
}

/** Shows the state in the tab's title and icon, for a reader who looks at another tab. */
function signal(level, kind) {
  const placements = [...desk.rows.placement.values()];
  const under = placements.filter((row) => row.state === "under").length, hits = placements.filter(blocked).length;
  const bad = [under ? `${under} under` : "", hits ? `${hits} blocked` : ""].filter(Boolean).join(", ");
  const down = level === "down" || level === "slow";
  document.title = `${down ? `${kind.startsWith("redis") ? "redis" : kind} · ` : bad ? `(${bad}) ` : ""}audiopixel`;
  const icon = `/page/icon${level === "down" || (!down && bad) ? "-red" : down ? "-amber" : ""}.svg`;
  if ($("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
}

$("banner-advice").href = advice("blind");
$("silence-advice").href = advice("silent");
