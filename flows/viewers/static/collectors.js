// The collectors: their calls, the outcomes, the events on their spools, and silent tags.

import { nowMs } from "./data.js";
import { $, linked, make } from "./dom.js";
import { view } from "./view.js";
import { advice, percent, since, span, whole } from "./words.js";

const EVERY_MS = 2000, OLDEST_S = 60;
let readAt = -Infinity;

/** The reasons of a decision on consent, in words. */
export const CONSENT = {
  given: "given", no_string: "no consent string", unreadable: "string cannot be read", policy: "string of an old form", not_disclosed: "vendor not shown",
  purpose: "purpose refused", vendor: "vendor refused", lmt: "device limits tracking", child: "child", opted_out: "opted out",
};

const HELD = {
  drain: (by) => `the flow waits for pixels that collector ${by} holds.`,
  clock: (by) => `the clock of collector ${by} is wrong. The flow waits for it for five minutes at most.`,
};

/** Reads the figures again if their section is visible and the last answer is old. */
export async function drawCollectors() {
  if ($("collectors").hidden || performance.now() - readAt < EVERY_MS) return;
  readAt = performance.now();
  let figures;
  try {
    const answer = await fetch("/api/collectors");
    if (!answer.ok) throw new Error();
    figures = await answer.json();
  } catch {
    $("collectors-body").replaceChildren(make("p", "soft", "The exporter shows this reader no collectors."));
    return;
  }
  if (view.view === "collectors") $("collectors-body").replaceChildren(...sections(figures));
}

function sections({ error, hold, archive, collectors, together, sources, silent_tags: silent }) {
  const now = nowMs(), parts = [];
  if (error) parts.push(make("p", "trouble", `Redis cannot be read (${error}): these figures are old.`));
  if (hold) parts.push(make("p", "trouble", `Windows and pacing stand still since ${since(hold.since_ms, now)}: ${(HELD[hold.why] ?? HELD.drain)(hold.by || "?")} `, linked("What to do", advice("held"))));
  if (archive) parts.push(make("p", archive.missing !== 0 || archive.unreadable !== 0 ? "trouble" : "soft note", `The archive has all pixels up to ${span((now - archive.through_ms) / 1000)} ago${archive.missing !== 0 ? `, but ${whole(archive.missing)} that Kafka had deleted` : ""}${archive.unreadable !== 0 ? `, and ${whole(archive.unreadable)} of its objects cannot be read` : ""}; written ${span((now - archive.updated_ms) / 1000)} ago.`));
  if (sources.length) parts.push(
    table("Sources", ["source", "process", "state", "read", "pixels", "not ours", "rejected", "behind", "low mark", "last report"], sources.map((one) => [
      one.source, one.id.split("@")[1] ?? "", one.away ? "away" : one.waiting !== 0 ? "waits for a schema" : "reads", whole(one.read), whole(one.pixels), whole(one.not_ours), whole(one.rejected),
      whole(one.behind), one.low_ms ? `${span((now - one.low_ms) / 1000)} ago` : "–", `${span((now - one.updated_ms) / 1000)} ago`,
    ]), 3));
  if (!collectors.length) return [...parts, ...(sources.length ? [] : [make("p", "soft", "No collector has reported. Start one: audiopixel collect.")])];
  parts.push(
    table("Processes", ["collector", "state", "calls", "stored", "refused", "rejected", "not counted", "on the spool", "spool full", "low mark", "last report"], collectors.map((one) => [
      one.id, one.away ? "away" : one.ready ? "ready" : "not ready", whole(one.calls), whole(one.stored), whole(one.refused), whole(one.rejected), whole(one.not_counted),
      resting(one, now), percent(one.spool_full_ratio), one.low_ms ? `${span((now - one.low_ms) / 1000)} ago` : "–", `${span((now - one.updated_ms) / 1000)} ago`,
    ]).concat(collectors.length > 1 ? [["together", `${together.ready} ready, ${together.away} away`, whole(together.calls), whole(together.stored), whole(together.refused), whole(together.rejected), whole(together.not_counted), resting(together, now), percent(together.spool_full_ratio), "", ""]] : []), 2, [, , "collector calls", "collector stored", "collector refused", "collector rejected", "collector not counted", "collector on the spool", "collector spool full", "collector low mark", "collector last report"]),
  );
  const halves = make("div", "halves",
    shares("Consent, by reason", together.consent_by, "collector consent", (reason) => CONSENT[reason] ?? reason),
    shares("Rejected, by reason", together.rejected_by, "collector rejected"),
    shares("Refused, by reason", together.refused_by, "collector refused"),
    shares("Invalid traffic, by rule", together.invalid_traffic_by, "collector invalid traffic"));
  const macros = Object.entries(together.unreplaced).flatMap(([dialect, words]) => Object.entries(words).map(([word, count]) => [dialect, word, count])).sort((a, b) => b[2] - a[2]).map(([dialect, word, count]) => [dialect, word, whole(count)]);
  parts.push(halves,
    table("Unreplaced macros", ["vendor", "parameter", "pixels"], macros, 2, [, , "collector macros"]),
    table("Unverified servers", ["network", "user agent", "line of audiopixel.toml that lists it", "calls"], together.unverified_servers.map((one) => [
      one.network, one.agent || "–", one.line, whole(one.calls),
    ]), 3, [, , , "unverified servers"]),
    table("Tags with a problem", ["placement", "what", "vendor", "built", "pixels", "with such a macro"], silent.map((tag) => [
      tag.placement, tag.why === "never_fired" ? "has never fired" : "macros are not replaced", tag.dialect ?? "–", tag.built_ms ? since(tag.built_ms, now) : "–", whole(tag.fires), whole(tag.unreplaced),
    ]), 4, [, , , , "silent tags", "silent tags"]));
  return parts;
}

function resting(one, now) {
  const age = one.oldest_resting_ms ? `, from ${since(one.oldest_resting_ms, now)}` : "";
  return `${whole(one.resting)}${one.oldest_resting_ms && now - one.oldest_resting_ms > OLDEST_S * 1000 ? age : ""}`;
}

/** A number whose click opens its description. It is no button, since it is drawn again every two seconds; the key i opens the description, too. */
function described(tag, words, metric, kind = "") {
  const element = make(tag, kind, words);
  if (metric) element.dataset.metric = metric;
  return element;
}

/** A table with its caption. The first `left` columns are words; a click on a cell of a column in `metrics` opens its description. */
export function table(caption, heads, rows, left, metrics = []) {
  const side = (place) => (place < left ? "left" : "");
  const head = heads.map((words, place) => Object.assign(make("th", side(place), words), { scope: "col" }));
  const body = rows.map((row) => make("tr", "", ...row.map((words, place) => described("td", words, metrics[place], side(place)))));
  const box = make("div", "wide", make("table", "", make("thead", "", make("tr", "", ...head)), make("tbody", "", ...(body.length ? body : [make("tr", "", Object.assign(make("td", "left soft", "none"), { colSpan: heads.length }))]))));
  box.tabIndex = 0;
  box.role = "region";
  box.ariaLabel = caption;
  return make("section", "", make("h3", "", caption), box);
}

/** Counts as bars, the greatest first. */
function shares(caption, counts, metric, words = (reason) => reason.replaceAll("_", " ")) {
  const sum = Object.values(counts).reduce((so, one) => so + one, 0);
  const lines = Object.entries(counts).sort((a, b) => b[1] - a[1]).map(([reason, count]) => {
    const bar = make("i");
    bar.style.width = `${(100 * count) / sum}%`;
    return make("div", "step", make("span", "", words(reason)), make("span", "fill", bar), described("span", whole(count), metric), described("span", percent(count / sum, 1), metric));
  });
  return make("section", "", make("h3", "", caption), ...(lines.length ? lines : [make("p", "soft", "none")]));
}
