// The dialog about a number: a click on the number, or the key i, opens the flow's own description of its metric.

import { DECLARED } from "./declared.js";
import { $, linked, make, setText, term } from "./dom.js";
import { cards, chosenColumns } from "./table.js";

/** The metric of each column of numbers; a word only chooses its row. */
export const OF_COLUMN = Object.fromEntries(DECLARED.filter(({ metric }) => metric).map(({ key, metric }) => [key, metric]));
/** Numbers without a row. Those of the bar are of all partitions together. */
const OF_BAR = {
  "pixels a second": { counts: "Messages read from the source, without collectors' marks, over the last ten seconds." },
  "repeated share": { counts: "Pixels that had counted before, by all messages received since the log's beginning." },
  "rejected share": { counts: "Messages that went to the dead letters, by all received since the log's beginning." },
  "macro left": { counts: "Pixels of a platform with an unreplaced macro, by all of its pixels, at the collectors since they started." },
  "invalid share": { counts: "Pixels of invalid traffic, by all messages received since the log's beginning." },
};
/** Numbers that collectors report of themselves, each since its own start. */
const OF_COLLECTORS = {
  "collector calls": { counts: "HTTP calls that the collector has answered." },
  "collector stored": { counts: "Events of these calls that are safe, on the spool or in Kafka, before the call was answered." },
  "collector refused": { counts: "Events that could not be made safe: the caller was asked to retry.", "by reason": "Why the collector could not take them." },
  "collector rejected": { counts: "Events that are no pixels; they are in the dead letters.", "by reason": "The first fault that was found of each." },
  "collector not counted": { counts: "Calls without a listener, such as HEAD or a range of two bytes. They never become events." },
  "collector on the spool": { counts: "Events that Kafka has not acknowledged, and the time since which the oldest of them waits." },
  "collector spool full": { counts: "Bytes of the spool in use, by the bytes that it may take." },
  "collector low mark": { counts: "Age of the oldest event that the collector has not put into the log: no minute becomes final before it." },
  "collector last report": { counts: "Time since the collector last wrote its figures." },
  "collector consent": { counts: "Pixels by the decision on their consent: given, or why not." },
  "collector invalid traffic": { counts: "Pixels that the collector's lists and rules judge to be invalid traffic, by the first rule that holds." },
  "collector macros": { counts: "Pixels with a parameter that is still the vendor's own macro." },
  "unverified servers": { counts: "Calls that speak for a listener's device, from no listed server and without a token: invalid traffic, in the ten networks (/24, /48) with most of them. List a network only if you know whose it is: whoever is in it may then speak for any listener." },
  "silent tags": { counts: "Pixels of a signed tag, and those of them with an unreplaced macro." },
};
const OF_OTHERS = { ...OF_BAR, ...OF_COLLECTORS };
let described = null;

/** Registers the description of a number that is no metric of a row; returns its name for `figure`. */
export function explained(name, sentences) {
  OF_OTHERS[name] = sentences;
  return name;
}

/** A number as a button that opens its description. */
export function figure(words, metric) {
  const element = Object.assign(make("button", "figure", words), { type: "button" });
  element.dataset.metric = metric;
  return element;
}

/** Opens the description of a metric; without one, of the first that the table shows. */
export async function how(metric = OF_COLUMN[chosenColumns().find(({ key }) => OF_COLUMN[key])?.key] ?? "impressions") {
  $("how-body").replaceChildren(make("p", "soft", "Loading the description."));
  $("how-choice").hidden = true;
  $("how").showModal();
  try {
    const answer = await fetch("/v1/methodology");
    if (!answer.ok) throw new Error();
    described = await answer.json();
    described.metrics = { ...described.metrics, ...OF_OTHERS };
  } catch {
    described = Object.hasOwn(OF_OTHERS, metric) ? { hash: "", version: "", rules: {}, metrics: { ...OF_OTHERS } } : null;
  }
  if (described === null) {
    $("how-body").replaceChildren(make("p", "soft", "The exporter has no description of how the flow counts. "), linked("How numbers are counted", "/docs/meaning.md"));
    return;
  }
  $("how-choice").hidden = false;
  $("how-metric").replaceChildren(...Object.keys(described.metrics).map((name) => new Option(name.replaceAll("_", " "), name)));
  $("how-metric").value = Object.hasOwn(described.metrics, metric) ? metric : "impressions";
  draw();
}

/** The subjects of a description that come first. */
const FIRST = ["counts", "consent", "accuracy", "unit", "windows"];
const place = ([subject]) => (FIRST.includes(subject) ? FIRST.indexOf(subject) : FIRST.length);

function draw() {
  const { hash, version, rules, metrics } = described, list = (sentences) => make("dl", "", ...Object.entries(sentences).toSorted((a, b) => place(a) - place(b)).map(([subject, sentence]) => term(subject.replaceAll("_", " "), sentence)));
  $("how-body").replaceChildren(list(metrics[$("how-metric").value]), ...(hash ? [make("h3", "", "For all numbers"), list(rules)] : []));
  setText($("how-hash"), hash ? `Methodology ${hash} of audiopixel ${version}.` : "The exporter has no description of how the flow counts.");
}

$("how-metric").addEventListener("change", draw);
$("how-close").addEventListener("click", () => $("how").close());
document.addEventListener("click", (event) => {
  const number = event.target.closest("[data-metric]");
  if (number) how(number.dataset.metric);
});
// A row has too many numbers for a button each: the clicked cell names its column.
$("grid").addEventListener("click", (event) => {
  const metric = OF_COLUMN[event.target.closest("td")?.dataset.key];
  if (metric && !cards() && !event.target.closest("a, button") && getSelection().isCollapsed) how(metric);
});
