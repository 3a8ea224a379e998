// Changes of delivery states, and feeds that fell silent, from the stream that the flow writes: the latest first, each with its numbers.

import { desk, nowMs } from "./data.js";
import { $, linked, make } from "./dom.js";
import { link, matcher, view } from "./view.js";
import { ROW_REASONS, advice, moment, numeral, percent, since, stateWords, unitOf, unitWords, whole } from "./words.js";
import { stateOf } from "./data.js";

const SEEN_LATE_MS = 120000;          // between the beginning of a state and the change, as of a flow that reads an older log

/** One change as a line; with the placement's name where it stands among others. */
export function change(told, named = true) {
  if (isFeed(told)) return feed(told);
  const n = (field) => numeral(told[field]), [from, to] = [stateOf(told.from), stateOf(told.to)];
  const badge = make("span", "state", stateWords(to)), line = make("li");
  badge.dataset.state = to;
  const facts = [`before: ${stateWords(from)}`];
  if (Number.isFinite(n("indicator"))) facts.push(`pacing ${percent(n("indicator"))}`);
  if (Number.isFinite(n("expected"))) facts.push(`${whole(n("delivered"))} delivered of ${whole(n("expected"))} due`);
  if (Number.isFinite(n("required_rate"))) facts.push(`needed ${whole(n("required_rate"))} impressions/hour`);
  if (n("as_of_ms") - n("since_ms") > SEEN_LATE_MS) facts.push(`since ${moment(n("since_ms"))}`);
  line.append(make("time", "soft", since(n("as_of_ms"), nowMs())), badge);
  if (named) line.append(Object.assign(make("a", "name", told.placement), { dir: "auto", href: link({ view: "placements", open: told.placement }) }));
  line.append(make("span", "facts-line", [...facts, named && told.campaign ? `campaign ${told.campaign}` : ""].filter(Boolean).join(" · ")));
  if (advice(to)) line.append(linked("What to do", advice(to)));
  return line;
}

/** An entry of a feed, not of a placement. */
const isFeed = (told) => told.kind === "feed";
const feedWords = (told) => (told.to === "live" ? "feed is back" : ROW_REASONS.feed_silent);

function feed(told) {
  const badge = make("span", "state", feedWords(told)), line = make("li"), back = told.to === "live", [name, kind] = unitOf(told.unit ?? "");
  badge.dataset.state = back ? "on_track" : "unjudged";
  const placements = numeral(told.placements), began = numeral(told.since_ms);
  const facts = [kind, placements > 0 ? `${whole(placements)} placement${placements === 1 ? " has" : "s have"} pixels of it` : "", back && Number.isFinite(began) ? `silent since ${since(began, nowMs())}` : ""];
  line.append(make("time", "soft", since(numeral(back ? told.as_of_ms : told.since_ms), nowMs())), badge, Object.assign(make("span", "name", name), { dir: "auto" }));
  line.append(make("span", "facts-line", facts.filter(Boolean).join(" · ")));
  if (!back) line.append(linked("What to do", advice("silent")));
  return line;
}

/** What the filter looks into. */
const searched = (told) => (isFeed(told) ? [unitWords(told.unit ?? ""), feedWords(told)] : [told.placement, told.campaign, stateWords(stateOf(told.to))]);

let drawn = "";

/** Draws the list where its section is in sight and something is new. */
export function drawAlerts() {
  if ($("history").hidden) return;
  const matches = matcher(view.q), found = desk.alerts.filter((one) => matches(searched(one).join("\n").toLowerCase()));
  const key = `${found.length} ${found[0]?.id} ${view.q} ${Math.floor(nowMs() / 10000)}`;
  if (key === drawn) return;
  drawn = key;
  $("changes").replaceChildren(...(found.length ? found.map((one) => change(one)) : [make("li", "soft", "No change of state is known.")]));
}
