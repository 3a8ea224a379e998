// One placement, campaign, creative or app, whole: pacing, money, quartiles, reach, conversions, integrity and its history.

import { change } from "./alerts.js";
import { drawChart, forget, keys, legend } from "./chart.js";
import { drawCourse, forgetCourse, redrawCourse } from "./course.js";
import { desk, nowMs, shownState, stateOf } from "./data.js";
import { $, button, linked, make, narrow, say, setParts, setText, storage } from "./dom.js";
import { copied } from "./out.js";
import { choose, scope } from "./table.js";
import { figure } from "./how.js";
import { drawWaterfall } from "./waterfall.js";
import { RANGES, go, link, view } from "./view.js";
import { NULL, UNKNOWN_BEFORE, advice, fixed, left, moment, money, numeral, percent, shares, since, span, stateWords, unitWords, whole, whyWords } from "./words.js";

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";
const PANE_MS = 2000, FIRST_MS = 200;
const RANGE_S = { "1h": 3600, "6h": 6 * 3600, "24h": 24 * 3600 };
let requests = 0, timer = 0, shown = null;

/** Opens, changes or closes the pane, by the view. */
export function show(before) {
  const id = view.open || null;
  const covers = narrow.matches && id !== null;
  for (const part of ["bar", "top", "tools", "scroll"]) $(part).inert = covers;
  $("pane").hidden = id === null;
  if (id === null) {
    if (shown !== null) { close(); $("scroll").focus(); }
    return;
  }
  if (shown !== `${scope()} ${id}` || before?.range !== view.range) { forget(); redrawCourse(); }
  if (shown !== `${scope()} ${id}`) {
    shown = `${scope()} ${id}`;
    choose(id);
    setText($("p-id"), id);
    setText($("p-labels"), "");
    $("p-advice").replaceChildren();
    $("p-body").hidden = true;
    $("p-state").hidden = true;
    $("p-blocked").hidden = true;
    $("pane").scrollTop = 0;
    $("p-id").focus();
    say(`${scope()} ${id} is open`);
  }
  for (const one of document.querySelectorAll(".ranges button")) one.setAttribute("aria-pressed", String(one.dataset.range === view.range));
  load();
}

function close() {
  shown = null;
  requests += 1;
  clearTimeout(timer);
  forget();
  forgetCourse();
}

async function load() {
  const turn = (requests += 1);
  clearTimeout(timer);
  let body = null;
  try {
    const answer = await fetch(`/row?${new URLSearchParams({ scope: scope(), id: view.open, range: view.range, zone: ZONE })}`);
    body = await answer.json();
  } catch {
    body = { error: "The exporter does not answer." };
  }
  if (turn !== requests) return;
  if (body.error) setText($("p-labels"), body.error);
  else fill(body);
  timer = setTimeout(load, desk.status ? PANE_MS : FIRST_MS);  // without a status, times are by the browser's clock
}

/** Draws a list of facts: name, value, metric and tone. Elements that exist are changed in place, so that the focus stays. */
function facts(id, rows) {
  const box = $(id), names = rows.map(([name]) => name).join();
  if (box.names !== names) {
    box.names = names;
    box.replaceChildren(...rows.map(([name, , metric]) => make("div", "", make("dt", "", name), make("dd", "", figure("", metric)))));
  }
  rows.forEach(([, value, , tone], place) => {
    box.children[place].className = tone ?? "";
    setText(box.children[place].querySelector("button"), value);
  });
}

/** Sentences about a flight that is counted in part: since when, its opening balance, the gap, and the reason. */
function coverage(row, n, now) {
  const counted = n("flight.counted_since_ms"), balance = n("delivery.delivered_before"), gap = n("delivery.gap_ms");
  const unknown = row["delivery.unknown_reason"], parts = [];
  if (!(counted > n("delivery.start_ms")) && !unknown && !Number.isFinite(balance)) return parts;
  if (Number.isFinite(counted)) parts.push(`Counted since ${since(counted, now)}. `);
  if (Number.isFinite(balance)) {
    const until = n("delivery.delivered_before_until_ms"), source = row["delivery.delivered_before_source"];
    parts.push(`Delivered before${Number.isFinite(until) ? ` ${moment(until)}` : ""}: ${whole(balance)} impressions`, ...(source ? [", by ", make("bdi", "", source)] : []), ". ");
  }
  if (gap > 0) parts.push(`${left(gap / 1000)} of the flight are not counted. `);
  if (unknown) parts.push(`Unknown what was delivered: ${UNKNOWN_BEFORE[unknown] ?? unknown}.`);
  return parts;
}

function fill({ row, sentence, curve, alerts, theirs, course }) {
  const n = (field) => numeral(row[field]), now = nowMs(), currency = row["delivery.currency"];
  const deliveryState = stateOf(row["delivery.state"]), state = shownState(row["delivery.state"], row["delivery.judged"]), planned = row["delivery.booked"] !== undefined;
  const words = stateWords(state) + (state === "unjudged" ? whyWords(row["delivery.unjudged_reason"]) : "");
  $("p-body").hidden = false;
  $("p-state").hidden = false;
  $("p-blocked").hidden = !(n("flight.blocked_impressions") > 0);
  setText($("p-blocked"), `blocked ${whole(n("flight.blocked_impressions"))}`);
  $("p-state").dataset.state = state;
  setText($("p-state"), words);
  const sinceWhen = (words, field) => (Number.isFinite(n(field)) ? `${words} since ${since(n(field), now)}` : words);
  const stateSince = Number.isFinite(n("delivery.since_ms")) ? sinceWhen(stateWords(deliveryState), "delivery.since_ms") : "";
  const unit = row["delivery.unjudged_by"];
  $("p-unjudged").hidden = state !== "unjudged";
  setParts($("p-unjudged"), `${sinceWhen(words[0].toUpperCase() + words.slice(1), "delivery.unjudged_since_ms")}${unit ? ": " : ""}`,
    ...(unit ? [make("bdi", "", unitWords(unit)), " sends nothing"] : []), ". The delivery state stands still until it is judged again: do not change bids by it.");
  const before = coverage(row, n, now);
  $("p-before").hidden = !before.length;
  setParts($("p-before"), ...before);
  $("p-sentence").hidden = !sentence;
  setText($("p-sentence"), sentence ?? "");
  const labels = desk.labels.filter((label) => row[label]).flatMap((label, place) => [`${place ? " · " : ""}${label === "campaign_id" ? "campaign " : ""}`, make("bdi", "", row[label])]);
  setParts($("p-labels"), ...labels, labels.length && stateSince ? " — " : "", stateSince);
  const troubles = [n("flight.blocked_impressions") > 0 ? ["In blocked content", advice("blocked")] : null, advice(state) ? [words, advice(state)] : null];
  $("p-advice").replaceChildren(...troubles.filter(Boolean).map(([words, href]) => linked(`${words[0].toUpperCase()}${words.slice(1)}: what to do`, href)));
  $("p-report").hidden = scope() !== "campaign";
  $("p-report").firstChild.href = `/report?${new URLSearchParams({ id: view.open })}`;
  const short = Math.max(0, n("delivery.short_by"));
  const done = planned ? n("delivery.delivered") : n("flight.impressions");
  facts("p-pacing", [
    ["pacing", percent(n("delivery.indicator")), "delivery.indicator", ["under", "at_risk"].includes(state) ? state : ""],
    ["short by, impressions", whole(short), "delivery.short_by"],
    ["at stake", money(n("delivery.at_stake"), currency), "delivery.at_stake"],
    ["at stake by the end", money(n("delivery.at_stake_end"), currency), "delivery.at_stake_end"],
    ["delivered", whole(done), planned ? "delivery.delivered" : "impressions"],
    ["due by now", whole(n("delivery.expected")), "delivery.expected"],
    ["booked", whole(n("delivery.booked")), "delivery.booked"],
    ["last hour, impressions/hour", whole(n("1h.impressions")), "impressions"],
    ["needed, impressions/hour", whole(n("delivery.required_rate")), "delivery.required_rate"],
    ["projected", whole(n("delivery.projected")), "delivery.projected"],
    ["cost", money(n("flight.cost"), currency), "cost"],
    ["CPM", money(n("delivery.cpm"), currency), "delivery.cpm"],
    ["blocked content", whole(n("flight.blocked_impressions")), "blocked_impressions", n("flight.blocked_impressions") > 0 ? "under" : ""],
  ]);
  setText($("p-ends"), flight(n, now));
  if (view.range === "flight" && planned) drawChart(curve, n("delivery.start_ms") / 1000, n("delivery.end_ms") / 1000, true);
  else drawChart(curve, now / 1000 - (RANGE_S[view.range] ?? 31 * 86400), now / 1000, false);
  drawCourse(course ? view.open : "");
  drawWaterfall(theirs);
  funnel(n);
  reach(n);
  byClient(n);
  const bases = Object.keys(row).filter((field) => field.startsWith("flight.impressions_") && n(field) > 0);
  facts("p-basis", [
    ["basis", row.impression_basis ?? NULL, "impressions"],
    ...bases.map((field) => [field.slice("flight.impressions_".length).replaceAll("_", " "), whole(n(field)), field.slice("flight.".length)]),
    ["deliveries", whole(n("flight.deliveries")), "deliveries"],
    ["play-through", percent(n("flight.play_through")), "play_through"],
  ]);
  const types = Object.keys(row).filter((field) => /^flight\.conversions_/.test(field) && n(field) > 0);
  facts("p-conversions", [
    ["conversions", shares(n("flight.conversions")), "conversions"],
    ["of reach", percent(n("flight.conversion_rate"), 2), "conversion_rate"],
    ["value", money(n("flight.conversion_value") / 1e6, row.conversion_currency ?? currency), "conversion_value"],
    ["claimed value", money(n("flight.conversion_value_claimed") / 1e6, row.conversion_currency ?? currency), "conversion_value_claimed"],
    ["cost per conversion", money(n("flight.cost_per_acquisition"), currency), "cost_per_acquisition"],
    ["half within", span(n("flight.time_to_convert_p50_seconds")), "time_to_convert_p50_seconds"],
    ["return on spend", fixed(n("flight.return_on_ad_spend")), "return_on_ad_spend"],
    ...types.map((field) => [field.slice("flight.conversions_".length).replaceAll("_", " "), shares(n(field)), field.slice("flight.".length)]),
  ]);
  facts("p-integrity", [
    ["repeated", whole(n("flight.repeated")), "repeated"],
    ["too late", whole(n("flight.too_late")), "too_late"],
    ["invalid traffic", whole(n("flight.invalid_traffic")), "invalid_traffic"],
    ["orphans", whole(n("flight.orphans")), "orphans"],
    ["repaired", whole(n("flight.repaired")), "repaired"],
    ["consent", percent(n("flight.consent_coverage"), 1), "consent_coverage"],
  ]);
  setText($("p-final"), `Numbers as of ${since(n("as_of_ms"), now)}; final through ${since(n("final_through_ms"), now)}.`);
  $("p-history").replaceChildren(...(alerts.length ? alerts.map((one) => change(one, scope() !== "placement")) : [make("li", "soft", "No change of state is known.")]));
}

function flight(n, now) {
  const [start, end] = [n("delivery.start_ms"), n("delivery.end_ms")];
  if (!Number.isFinite(end)) return "";
  const rest = n("delivery.remaining_seconds"), pauses = Number.isFinite(rest) && (end - n("as_of_ms")) / 1000 - rest >= 60;
  const unpaused = pauses && end > now ? `, ${left(rest)} of it not paused` : "";
  return now < start ? `Begins ${since(start, now)}, ends ${since(end, now)}.` : `${end > now ? "Ends" : "Ended"} ${since(end, now)}${unpaused}. Began ${since(start, now)}.`;
}

function funnel(n) {
  const steps = [["starts", "starts"], ["25 %", "first_quartiles"], ["50 %", "midpoints"], ["75 %", "third_quartiles"], ["completes", "completes"]];
  const starts = n("flight.starts"), box = $("p-funnel");
  if (!box.children.length) {
    box.append(...steps.map(([name, metric]) => make("div", "step", make("span", "", name), make("span", "fill", make("i")), make("span", "", figure("", metric)), make("span", "", figure("", metric)))));
  }
  steps.forEach(([, metric], place) => {
    const value = n(`flight.${metric}`), [count, share] = box.children[place].querySelectorAll("button");
    box.children[place].querySelector("i").style.width = starts > 0 && value > 0 ? `${(100 * value) / starts}%` : "0";
    setText(count, whole(value));
    setText(share, starts > 0 ? percent(value / starts, 1) : NULL);
  });
}

function reach(n) {
  const windows = [["5m", "5 min"], ["1h", "1 hour"], ["1d", "today"], ["flight", "flight"]];
  const box = $("p-reach"), rate = (window) => (window === "5m" || window === "1h" ? "mature_completion_rate" : "completion_rate");
  if (!box.children.length) {
    box.append(...windows.map(([window, words]) => make("tr", "", Object.assign(make("th", "left", words), { scope: "row" }),
      ...["impressions", "reach", "frequency", rate(window), "household_reach"].map((metric) => make("td", "", figure("", metric))))));
  }
  windows.forEach(([window], place) => {
    const values = [whole(n(`${window}.impressions`)), whole(n(`${window}.reach`)), fixed(n(`${window}.frequency`)), percent(n(`${window}.${rate(window)}`)), whole(n(`${window}.household_reach`))];
    box.children[place].querySelectorAll("button").forEach((one, at) => setText(one, values[at]));
  });
}

/** Draws the counts once a client, of today and of the flight; hidden if all of them are 0. */
function byClient(n) {
  const rows = ["downloads", "deliveries"].flatMap((kind) => [["1d", "today"], ["flight", "flight"]].map(([window, words]) => [kind, window, `${kind}, ${words}`]));
  const counts = ["calendar", "first_touch", "last_touch", "unkeyed"], box = $("p-windows");
  if (!box.children.length) {
    box.append(...rows.map(([kind, , words]) => make("tr", "", Object.assign(make("th", "left", words), { scope: "row" }), ...counts.map((count) => make("td", "", figure("", `${kind}_${count}`))))));
  }
  rows.forEach(([kind, window], place) => {
    const values = counts.map((count) => n(`${window}.${kind}_${count}`));
    box.children[place].hidden = !values.some((value) => value > 0);
    box.children[place].querySelectorAll("button").forEach((one, at) => setText(one, whole(values[at])));
  });
  $("p-clients").hidden = [...box.children].every((line) => line.hidden);
}

for (const box of document.querySelectorAll(".ranges")) {
  box.replaceChildren(...Object.entries(RANGES).map(([range, words]) => {
    const one = button(words, () => go({ range }, { replace: true }));
    one.dataset.range = range;
    return one;
  }));
}
$("p-more").open = storage.get("more") === "open";
$("p-more").addEventListener("toggle", () => storage.set("more", $("p-more").open ? "open" : ""));
$("p-legend-keys").replaceChildren(...legend());
$("p-plot").addEventListener("keydown", keys);
$("p-close").addEventListener("click", () => go({ open: "" }));
$("p-copy").addEventListener("click", () => copied(view.open, "id"));
$("p-link").addEventListener("click", () => copied(new URL(link(), location.href).href, "link"));
