// The last calls of the collectors, each with its outcome and the reason.

import { CONSENT } from "./collectors.js";
import { nowMs } from "./data.js";
import { $, linked, make } from "./dom.js";
import { link, matcher, view } from "./view.js";
import { span, whole } from "./words.js";

const EVERY_MS = 1000;
let readAt = -Infinity, answer = null, failed = false, drawn = "";

const OUTCOMES = { stored: "stored", rejected: "rejected", not_counted: "not counted", refused: "refused" };
/** Reasons in words; a reason without words is shown as it is. */
const REASONS = {
  malformed: () => "the call cannot be read",
  unknown_event: ({ event, meant }) => `no event is called ${event || "so"}${meant ? `; did you mean ${meant}?` : ""}`,
  unsigned: ({ field }) => (field === "u" ? "the click's target is neither signed nor listed" : "the tag is not signed for this placement and campaign"),
  invalid: ({ field }) => `${field || "a field"} is missing or not valid`,
  head: () => "a HEAD call has no listener",
  tracked: () => "the click leads on; the pixel beside it counts",
};
const CONSENT_GIVEN = "given";

/** The sentence of a call. */
export function why(call) {
  const parts = [];
  if (call.reason) parts.push((Object.hasOwn(REASONS, call.reason) ? REASONS[call.reason](call) : call.reason.replaceAll("_", " ")));
  if (call.outcome === "refused") parts.push("it could not be stored, and the sender was asked to retry");
  if (call.invalid_traffic) parts.push(`invalid traffic: ${call.invalid_traffic.replaceAll("_", " ")}`);
  if (call.outcome === "stored" && call.consent && call.consent !== CONSENT_GIVEN) parts.push(`no consent: ${CONSENT[call.consent] ?? call.consent.replaceAll("_", " ")}`);
  if (call.unread?.length) parts.push(`nothing reads ${call.unread.join(", ")}`);
  return parts.join("; ");
}

const tone = (call) => (call.outcome === "stored" ? (call.invalid_traffic ? "at_risk" : "on_track") : call.outcome === "not_counted" ? "none" : "under");

function row(call) {
  const badge = make("span", "state", OUTCOMES[call.outcome] ?? call.outcome), name = call.placement ? Object.assign(linked(call.placement, link({ view: "placements", open: call.placement })), { dir: "auto" }) : "–";
  badge.dataset.state = tone(call);
  const cells = [`${span((nowMs() - call.at_ms) / 1000)} ago`, badge, call.event || "–", name, call.campaign || "–", call.sender, why(call) || "–", call.alike ? `+ ${whole(call.alike)}` : ""];
  const line = make("tr", "", ...cells.map((cell, place) => {
    const box = make("td", `${KEYS[place]}${place === 0 || place === 7 ? "" : " left"}${cell === "–" || cell === "" ? " none" : ""}`, cell);
    if (typeof cell === "string") box.dir = "auto";
    box.role = "cell";  // as a card it would not be a cell without this role
    return box;
  }));
  line.role = "row";
  return line;
}

const KEYS = ["when", "what", "event", "name", "campaign", "sender", "why", "alike"];
const HEADS = ["when", "outcome", "event", "placement", "campaign", "sender", "why", "more like it"];

/** Reads the calls again if their section is visible and the last answer is old. */
export async function drawLive() {
  if ($("live").hidden) return;
  if (performance.now() - readAt >= EVERY_MS) {
    readAt = performance.now();
    try {
      const response = await fetch("/api/calls");
      if (!response.ok) throw new Error();
      answer = await response.json();
      failed = false;
    } catch { failed = true; }
  }
  if (view.view !== "live") return;
  if (failed && !answer) { $("live-body").replaceChildren(make("p", "soft", "The exporter shows this reader no calls.")); return; }
  if (!answer) return;
  const matches = matcher(view.q), matching = answer.calls.filter((call) => matches([call.placement, call.campaign, call.event, call.outcome.replaceAll("_", " "), call.sender, call.reason].join("\n").toLowerCase()));
  const key = JSON.stringify([matching, view.q, answer.error, answer.events, Math.floor(nowMs() / 1000)]);
  if (key === drawn) return;
  drawn = key;
  const shown = `${whole(matching.length)} of the last ${whole(answer.calls.length)} calls, of ${whole(answer.events)} since the collectors started. Under load this is a sample: a collector stores five calls a second of each outcome and reason.`;
  const table = make("table", "", make("thead", "", make("tr", "", ...HEADS.map((title, place) => Object.assign(make("th", `${KEYS[place]}${place === 0 || place === 7 ? "" : " left"}`, title), { scope: "col", role: "columnheader" })))), make("tbody", "", ...matching.map(row)));
  table.role = "table";
  const wide = make("div", "wide", table);
  wide.tabIndex = 0;
  wide.role = "region";
  wide.ariaLabel = "Calls";
  $("live-body").replaceChildren(...[
    answer.error ? make("p", "trouble", `Redis cannot be read (${answer.error}): these calls are old.`) : null,
    make("p", "soft", answer.collectors ? shown : "No collector has written a call yet. Start one: audiopixel collect."),
    matching.length ? wide : answer.calls.length ? make("p", "", "No call matches the filter.") : null,
  ].filter(Boolean));
}
