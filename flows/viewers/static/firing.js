// What needs somebody now: the conditions of the delivery alerts by the rows, and of the feed and the pipeline by the bar.

import { blocked, blockedMoney, currencyOf, desk, number, nowMs, stake, stakeEnd } from "./data.js";
import { $, linked, make } from "./dom.js";
import { link, matcher, view } from "./view.js";
import { advice, money, percent, since, stateWords, unitWords, whole } from "./words.js";

/** Blocked content is first, then what is not judged, then placements by their money. */
const RANKS = { blocked: 0, unjudged: 1 };
const rank = ({ state }) => RANKS[state] ?? 2;
const STATES = { under: "warning", at_risk: "warning", over: "warning" };
const ENDED = new Set(["ended_short", "ended_unknown", "complete"]);

/** What holds of one placement: severity, badge, words, since when in ms, and what is to be done. */
function ofRow(row) {
  const found = [], currency = currencyOf(row);
  if (blocked(row) && !ENDED.has(row.state)) {
    const worth = blockedMoney(row) > 0 ? `, ${money(blockedMoney(row), currency)} that will not be paid` : "";
    found.push({ severity: "critical", state: "blocked", words: "blocked content", facts: `${whole(blocked(row))} impressions in content that the plan blocks${worth}. Stop the placement at the ad server first.`, since: NaN, todo: advice("blocked"), worth: blockedMoney(row) || 0, name: row.id });
  }
  if (Object.hasOwn(STATES, row.state)) {
    const parts = [`pacing ${percent(number(row, "delivery.indicator"))}`];
    if (stake(row) > 0) parts.push(`${money(stake(row), currency)} short now`);
    if (stakeEnd(row) > 0) parts.push(`${money(stakeEnd(row), currency)} by the end`);
    found.push({ severity: STATES[row.state], state: row.state, words: stateWords(row.state), facts: parts.join(", "), since: number(row, "delivery.since_ms"), todo: advice(row.state), worth: stakeEnd(row) || stake(row) || 0, name: row.id });
  }
  return found;
}

/** All that holds now, the worst first. */
export function firing() {
  const found = [], { status } = desk;
  if (status && !status.judged) found.push({ severity: "critical", state: "unjudged", words: "not judged", facts: $("banner-words").textContent, since: status.unjudged_since_ms ?? NaN, todo: advice("blind"), worth: 0, name: "" });
  for (const [kind, name] of status?.silence?.units ?? []) found.push({ severity: "critical", state: "unjudged", words: "feed silent", facts: `${unitWords(`${kind}:${name}`)} sends nothing: this is the feed, not delivery`, since: status.silence.since_ms, todo: advice("silent"), worth: 0, name: "" });
  for (const row of desk.rows.placement.values()) found.push(...ofRow(row));
  return found.sort((a, b) => rank(a) - rank(b) || b.worth - a.worth || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
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

/** Counts on the tab, and draws the list where its section is in sight. */
export function drawFiring() {
  const all = firing(), tab = document.querySelector("#tabs [data-view=alerts]"), count = all.length ? `Alerts ${whole(all.length)}` : "Alerts";
  if (tab && tab.textContent !== count) tab.textContent = count;
  if ($("alerts").hidden) return;
  const matches = matcher(view.q), found = all.filter((one) => matches([one.name, one.words, one.severity, one.facts].join("\n").toLowerCase()));
  const key = JSON.stringify([found, Math.floor(nowMs() / 10000)]);
  if (key === drawn) return;
  drawn = key;
  $("firing").replaceChildren(...(found.length ? found.slice(0, MOST).map(line) : [make("li", "soft", all.length ? "No alert matches the filter." : "Nothing needs anybody now.")]));
  if (found.length > MOST) $("firing").append(make("li", "soft", `${whole(found.length - MOST)} more.`));
}
