// Changes of delivery states, and silent feeds, from the flow's stream of alerts: the latest first, each with its numbers.

import { desk, nowMs, stateOf } from "./data.js";
import { $, linked, make } from "./dom.js";
import { link, matcher, view } from "./view.js";
import { ROW_REASONS, advice, moment, numeral, percent, since, stateWords, unitOf, unitWords, whole } from "./words.js";

const SEEN_LATE_MS = 120000;          // a later change shows the state's beginning: the flow reads an older log

/** A change as a line.
 * @param named whether the line has the placement's name */
export function change(alert, named = true) {
  if (isFeed(alert)) return feed(alert);
  const n = (field) => numeral(alert[field]), [from, to] = [stateOf(alert.from), stateOf(alert.to)];
  const badge = make("span", "state", stateWords(to)), line = make("li");
  badge.dataset.state = to;
  const facts = [`before: ${stateWords(from)}`];
  if (Number.isFinite(n("indicator"))) facts.push(`pacing ${percent(n("indicator"))}`);
  if (Number.isFinite(n("expected"))) facts.push(`${whole(n("delivered"))} delivered of ${whole(n("expected"))} due`);
  if (Number.isFinite(n("required_rate"))) facts.push(`needed ${whole(n("required_rate"))} impressions/hour`);
  if (n("as_of_ms") - n("since_ms") > SEEN_LATE_MS) facts.push(`since ${moment(n("since_ms"))}`);
  line.append(make("time", "soft", since(n("as_of_ms"), nowMs())), badge);
  if (named) line.append(Object.assign(make("a", "name", alert.placement), { dir: "auto", href: link({ view: "placements", open: alert.placement }) }));
  line.append(make("span", "facts-line", [...facts, named && alert.campaign ? `campaign ${alert.campaign}` : ""].filter(Boolean).join(" · ")));
  if (advice(to)) line.append(linked("What to do", advice(to)));
  return line;
}

/** True for an alert about a feed instead of a placement. */
const isFeed = (alert) => alert.kind === "feed";
const feedWords = (alert) => (alert.to === "live" ? "feed is back" : ROW_REASONS.feed_silent);

function feed(alert) {
  const badge = make("span", "state", feedWords(alert)), line = make("li"), back = alert.to === "live", [name, kind] = unitOf(alert.unit ?? "");
  badge.dataset.state = back ? "on_track" : "unjudged";
  const placements = numeral(alert.placements), began = numeral(alert.since_ms);
  const facts = [kind, placements > 0 ? `${whole(placements)} placement${placements === 1 ? " has" : "s have"} pixels of it` : "", back && Number.isFinite(began) ? `silent since ${since(began, nowMs())}` : ""];
  line.append(make("time", "soft", since(numeral(back ? alert.as_of_ms : alert.since_ms), nowMs())), badge, Object.assign(make("span", "name", name), { dir: "auto" }));
  line.append(make("span", "facts-line", facts.filter(Boolean).join(" · ")));
  if (!back) line.append(linked("What to do", advice("silent")));
  return line;
}

/** The texts that the filter searches. */
const searched = (alert) => (isFeed(alert) ? [unitWords(alert.unit ?? ""), feedWords(alert)] : [alert.placement, alert.campaign, stateWords(stateOf(alert.to))]);

let drawn = "";

/** Draws the list if its section is visible and an alert is new. */
export function drawAlerts() {
  if ($("history").hidden) return;
  const matches = matcher(view.q), matching = desk.alerts.filter((alert) => matches(searched(alert).join("\n").toLowerCase()));
  const key = `${matching.length} ${matching[0]?.id} ${view.q} ${Math.floor(nowMs() / 10000)}`;
  if (key === drawn) return;
  drawn = key;
  $("changes").replaceChildren(...(matching.length ? matching.map((alert) => change(alert)) : [make("li", "soft", "No change of state is known.")]));
}
