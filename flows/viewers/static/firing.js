// Alerts that need action now: conditions of delivery by the rows, and of the feed and the pipeline by the bar.

import { blocked, blockedMoney, currencyOf, desk, number, nowMs, stake, stakeEnd } from "./data.js";
import { $, linked, make } from "./dom.js";
import { link, matcher, view } from "./view.js";
import { advice, money, percent, since, stateWords, unitWords, whole } from "./words.js";

/** Blocked content is first, then unjudged delivery, then placements by their money. */
const RANKS = { blocked: 0, unjudged: 1 };
const rank = ({ state }) => RANKS[state] ?? 2;
const STATES = { under: "warning", at_risk: "warning", over: "warning" };
const ENDED = new Set(["ended_short", "ended_unknown", "complete"]);

/** The alerts of a placement: severity, badge, words, since when in epoch ms, and advice. */
function ofRow(row) {
  const alerts = [], currency = currencyOf(row);
  if (blocked(row) && !ENDED.has(row.state)) {
    const worth = blockedMoney(row) > 0 ? `, ${money(blockedMoney(row), currency)} that will not be paid` : "";
    alerts.push({ severity: "critical", state: "blocked", words: "blocked content", facts: `${whole(blocked(row))} impressions in content that the plan blocks${worth}. Stop the placement at the ad server first.`, since: NaN, todo: advice("blocked"), worth: blockedMoney(row) || 0, name: row.id });
  }
  if (Object.hasOwn(STATES, row.state)) {
    const parts = [`pacing ${percent(number(row, "delivery.indicator"))}`];
    if (stake(row) > 0) parts.push(`${money(stake(row), currency)} short now`);
    if (stakeEnd(row) > 0) parts.push(`${money(stakeEnd(row), currency)} by the end`);
    alerts.push({ severity: STATES[row.state], state: row.state, words: stateWords(row.state), facts: parts.join(", "), since: number(row, "delivery.since_ms"), todo: advice(row.state), worth: stakeEnd(row) || stake(row) || 0, name: row.id });
  }
  return alerts;
}

/** All alerts of now, the worst first. */
export function firing() {
  const alerts = [], { status } = desk;
  if (status && !status.judged) alerts.push({ severity: "critical", state: "unjudged", words: "not judged", facts: $("banner-words").textContent, since: status.unjudged_since_ms ?? NaN, todo: advice("blind"), worth: 0, name: "" });
  for (const [kind, name] of status?.silence?.units ?? []) alerts.push({ severity: "critical", state: "unjudged", words: "feed silent", facts: `${unitWords(`${kind}:${name}`)} sends nothing: this is the feed, not delivery`, since: status.silence.since_ms, todo: advice("silent"), worth: 0, name: "" });
  for (const row of desk.rows.placement.values()) alerts.push(...ofRow(row));
  return alerts.sort((a, b) => rank(a) - rank(b) || b.worth - a.worth || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function line(one) {
  const badge = make("span", "state", one.words), entry = make("li");
  badge.dataset.state = one.state;
  entry.append(make("strong", `severity ${one.severity}`, one.severity), badge);
  if (one.name) entry.append(Object.assign(make("a", "name", one.name), { dir: "auto", href: link({ view: "placements", q: "", state: "", open: one.name }) }));
  entry.append(make("span", "facts-line", one.facts.replace(/\.?$/, "."), ...(Number.isFinite(one.since) ? [` Since ${since(one.since, nowMs())}.`] : [])));
  if (one.todo) entry.append(linked("What to do", one.todo));
  return entry;
}

const MOST = 200;
let drawn = "";

/** Writes the count on the tab, and draws the list if its section is visible. */
export function drawFiring() {
  const all = firing(), tab = document.querySelector("#tabs [data-view=alerts]"), count = all.length ? `Alerts ${whole(all.length)}` : "Alerts";
  if (tab && tab.textContent !== count) tab.textContent = count;
  if ($("alerts").hidden) return;
  const matches = matcher(view.q), matching = all.filter((alert) => matches([alert.name, alert.words, alert.severity, alert.facts].join("\n").toLowerCase()));
  const key = JSON.stringify([matching, Math.floor(nowMs() / 10000)]);
  if (key === drawn) return;
  drawn = key;
  $("firing").replaceChildren(...(matching.length ? matching.slice(0, MOST).map(line) : [make("li", "soft", all.length ? "No alert matches the filter." : "No alert fires now.")]));
  if (matching.length > MOST) $("firing").append(make("li", "soft", `${whole(matching.length - MOST)} more.`));
}
