// The last calls of the collectors, each with what became of it and why.

import { CONSENT } from "./collectors.js";
import { nowMs } from "./data.js";
import { $, linked, make } from "./dom.js";
import { link, matcher, view } from "./view.js";
import { span, whole } from "./words.js";

const EVERY_MS = 1000;
let askedAt = -Infinity, told = null, failed = false, drawn = "";

const OUTCOMES = { stored: "stored", rejected: "rejected", not_counted: "not counted", refused: "refused" };
/** Why, in words; a reason without words is shown as it is. */
const WHY = {
  malformed: () => "the call cannot be read",
  unknown_event: ({ event, meant }) => `no event is called ${event || "so"}${meant ? `; did you mean ${meant}?` : ""}`,
  unsigned: ({ field }) => (field === "u" ? "the click's target is neither signed nor listed" : "the tag is not signed for this placement and campaign"),
  invalid: ({ field }) => `${field || "a field"} is missing or not valid`,
  head: () => "a HEAD call has no listener",
  tracked: () => "the click leads on; the pixel beside it counts",
};
const CONSENT_GIVEN = "given";

/** The sentence of a call. */
export function why(one) {
  const parts = [];
  if (one.reason) parts.push((Object.hasOwn(WHY, one.reason) ? WHY[one.reason](one) : one.reason.replaceAll("_", " ")));
  if (one.outcome === "refused") parts.push("it could not be stored, and the sender was asked to come again");
  if (one.invalid_traffic) parts.push(`invalid traffic: ${one.invalid_traffic.replaceAll("_", " ")}`);
  if (one.outcome === "stored" && one.consent && one.consent !== CONSENT_GIVEN) parts.push(`no consent: ${CONSENT[one.consent] ?? one.consent.replaceAll("_", " ")}`);
  if (one.unread?.length) parts.push(`nothing reads ${one.unread.join(", ")}`);
  return parts.join("; ");
}

const tone = (one) => (one.outcome === "stored" ? (one.invalid_traffic ? "at_risk" : "on_track") : one.outcome === "not_counted" ? "none" : "under");

function row(one) {
  const badge = make("span", "state", OUTCOMES[one.outcome] ?? one.outcome), name = one.placement ? Object.assign(linked(one.placement, link({ view: "placements", open: one.placement })), { dir: "auto" }) : "–";
  badge.dataset.state = tone(one);
  const cells = [`${span((nowMs() - one.at_ms) / 1000)} ago`, badge, one.event || "–", name, one.campaign || "–", one.sender, why(one) || "–", one.alike ? `+ ${whole(one.alike)}` : ""];
  const line = make("tr", "", ...cells.map((cell, place) => {
    const box = make("td", `${KEYS[place]}${place === 0 || place === 7 ? "" : " left"}${cell === "–" || cell === "" ? " none" : ""}`, cell);
    if (typeof cell === "string") box.dir = "auto";
    box.role = "cell";  // as a card it is no cell of a table by itself
    return box;
  }));
  line.role = "row";
  return line;
}

const KEYS = ["when", "what", "event", "name", "campaign", "sender", "why", "alike"];
const HEADS = ["when", "what became of it", "event", "placement", "campaign", "sender", "why", "more like it"];

/** Asks anew where the section is in sight and the last answer is old. */
export async function drawLive() {
  if ($("live").hidden) return;
  if (performance.now() - askedAt >= EVERY_MS) {
    askedAt = performance.now();
    try {
      const answer = await fetch("/api/calls");
      if (!answer.ok) throw new Error();
      told = await answer.json();
      failed = false;
    } catch { failed = true; }
  }
  if (view.view !== "live") return;
  if (failed && !told) { $("live-body").replaceChildren(make("p", "soft", "The exporter shows this reader no calls.")); return; }
  if (!told) return;
  const matches = matcher(view.q), found = told.calls.filter((one) => matches([one.placement, one.campaign, one.event, one.outcome.replaceAll("_", " "), one.sender, one.reason].join("\n").toLowerCase()));
  const key = JSON.stringify([found, view.q, told.error, told.events, Math.floor(nowMs() / 1000)]);
  if (key === drawn) return;
  drawn = key;
  const shown = `${whole(found.length)} of the last ${whole(told.calls.length)} calls, of ${whole(told.events)} since the collectors started. Under load this is a sample: a collector keeps five calls a second of each outcome and reason.`;
  const table = make("table", "", make("thead", "", make("tr", "", ...HEADS.map((title, place) => Object.assign(make("th", `${KEYS[place]}${place === 0 || place === 7 ? "" : " left"}`, title), { scope: "col", role: "columnheader" })))), make("tbody", "", ...found.map(row)));
  table.role = "table";
  const wide = make("div", "wide", table);
  wide.tabIndex = 0;
  wide.role = "region";
  wide.ariaLabel = "Calls";
  $("live-body").replaceChildren(...[
    told.error ? make("p", "trouble", `Redis cannot be read (${told.error}): these calls are old.`) : null,
    make("p", "soft", told.collectors ? shown : "No collector has written a call yet. Start one: audiopixel collect."),
    found.length ? wide : told.calls.length ? make("p", "", "No call matches the filter.") : null,
  ].filter(Boolean));
}
