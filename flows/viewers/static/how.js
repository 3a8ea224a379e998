// How a number is counted: a click on it, or the key i, opens the flow's own description of its metric.

import { $, linked, make, setText, term } from "./dom.js";
import { cards, chosenColumns } from "./table.js";

/** The metric of each column of numbers; a word only chooses its row. */
export const OF_COLUMN = {
  pacing: "delivery.indicator", short: "delivery.short_by", stake: "delivery.short_by", ends: "delivery.end_ms", delivered: "delivery.delivered",
  booked: "delivery.booked", progress: "delivery.delivered", hour: "impressions", needed: "delivery.required_rate", projected: "delivery.projected", cost: "cost", spark: "impressions",
  completion: "mature_completion_rate", reach: "reach", frequency: "frequency", conversions: "conversions", cpa: "cost_per_acquisition", blocked: "blocked_impressions",
  deliveries: "deliveries", through: "play_through",
};
/** Numbers of no row: those of the bar are of all partitions together. */
const OF_BAR = {
  "pixels a second": { counts: "Messages read from the source, without collectors' marks, over the last ten seconds." },
  "repeated share": { counts: "Pixels that had counted before, by all messages received since the log's beginning." },
  "rejected share": { counts: "Messages that went to the dead letters, by all received since the log's beginning." },
  "macro left": { counts: "Pixels of a platform with a macro that nobody has replaced, by all of its pixels, at the collectors since they started." },
  "invalid share": { counts: "Pixels of invalid traffic, by all messages received since the log's beginning." },
};
let described = null;

/** A number that can be asked how it was counted. */
export function figure(words, metric) {
  const one = Object.assign(make("button", "figure", words), { type: "button" });
  one.dataset.metric = metric;
  return one;
}

/** Opens the description of a metric; without one, of the first that the table shows. */
export async function how(metric = OF_COLUMN[chosenColumns().find(({ key }) => OF_COLUMN[key])?.key] ?? "impressions") {
  $("how-body").replaceChildren(make("p", "soft", "Asking the exporter."));
  $("how-choice").hidden = true;
  $("how").showModal();
  try {
    const answer = await fetch("/v1/methodology");
    if (!answer.ok) throw new Error();
    described = await answer.json();
    described.metrics = { ...described.metrics, ...OF_BAR };
  } catch {
    described = null;
    $("how-body").replaceChildren(make("p", "soft", "The exporter does not know how the flow counts. "), linked("How numbers are counted", "/docs/methodology.md"));
    return;
  }
  $("how-choice").hidden = false;
  $("how-metric").replaceChildren(...Object.keys(described.metrics).map((name) => new Option(name.replaceAll("_", " "), name)));
  $("how-metric").value = Object.hasOwn(described.metrics, metric) ? metric : "impressions";
  draw();
}

function draw() {
  const { hash, version, rules, metrics } = described, list = (said) => make("dl", "", ...Object.entries(said).map(([subject, sentence]) => term(subject.replaceAll("_", " "), sentence)));
  $("how-body").replaceChildren(list(metrics[$("how-metric").value]), make("h3", "", "For all numbers"), list(rules));
  setText($("how-hash"), `Methodology ${hash} of audiopixel ${version}.`);
}

$("how-metric").addEventListener("change", draw);
$("how-close").addEventListener("click", () => $("how").close());
document.addEventListener("click", (event) => {
  const asked = event.target.closest("[data-metric]");
  if (asked) how(asked.dataset.metric);
});
// A row has too many numbers for a button each: the cell that is clicked says which column it is of.
$("grid").addEventListener("click", (event) => {
  const metric = OF_COLUMN[event.target.closest("td")?.dataset.key];
  if (metric && !cards() && !event.target.closest("a, button") && getSelection().isCollapsed) how(metric);
});
