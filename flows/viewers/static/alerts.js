// Changes of delivery states, from the stream that the flow writes: the latest first, each with its numbers.

import { desk, nowMs } from "./data.js";
import { $, linked, make } from "./dom.js";
import { link, view } from "./view.js";
import { advice, numeral, percent, since, stateWords, whole } from "./words.js";
import { stateOf } from "./data.js";

/** One change as a line; with the placement's name where it stands among others. */
export function change(told, named = true) {
  const n = (field) => numeral(told[field]), [from, to] = [stateOf(told.from), stateOf(told.to)];
  const badge = make("span", "state", stateWords(to)), line = make("li");
  badge.dataset.state = to;
  const facts = [`before: ${stateWords(from)}`];
  if (Number.isFinite(n("indicator"))) facts.push(`pacing ${percent(n("indicator"))}`);
  if (Number.isFinite(n("expected"))) facts.push(`${whole(n("delivered"))} delivered of ${whole(n("expected"))} due`);
  if (Number.isFinite(n("required_rate"))) facts.push(`needed ${whole(n("required_rate"))} impressions/hour`);
  line.append(make("time", "soft", since(n("as_of_ms"), nowMs())), badge);
  if (named) line.append(Object.assign(make("a", "name", told.placement), { dir: "auto", href: link({ view: "placements", open: told.placement }) }));
  line.append(make("span", "facts-line", [...facts, named && told.campaign ? `campaign ${told.campaign}` : ""].filter(Boolean).join(" · ")));
  if (advice(to)) line.append(linked("What to do", advice(to)));
  return line;
}

let drawn = "";

/** Draws the list where its section is in sight and something is new. */
export function drawAlerts() {
  if ($("alerts").hidden) return;
  const words = view.q.toLowerCase().split(/\s+/).filter(Boolean);
  const found = desk.alerts.filter((one) => words.every((word) => [one.placement, one.campaign, stateWords(stateOf(one.to))].join("\n").toLowerCase().includes(word)));
  const key = `${found.length} ${found[0]?.id} ${view.q} ${Math.floor(nowMs() / 10000)}`;
  if (key === drawn) return;
  drawn = key;
  $("changes").replaceChildren(...(found.length ? found.map((one) => change(one)) : [make("li", "soft", "No change of state is known.")]));
}
