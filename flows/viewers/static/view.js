// The view, all of it in the URL: a link shows another reader the same view, and Back leads to the view before.

const DEFAULTS = { view: "placements", q: "", state: "", sort: "", group: "", cols: "", well: "", open: "", range: "1h" };
export const VIEWS = { placements: "Placements", campaigns: "Campaigns", creatives: "Creatives", apps: "Apps", alerts: "Alerts", history: "History", live: "Live", platforms: "Platforms", collectors: "Collectors", compare: "Discrepancy", tag: "Tag builder" };
/** The views that are a grid, and the scope of its rows. */
export const GRIDS = { placements: "placement", campaigns: "campaign", creatives: "creative", apps: "app" };
export const GROUPS = { "": "no groups", campaign_id: "by campaign", platform: "by platform", station: "by station" };
export const RANGES = { "1h": "1 h", "6h": "6 h", "24h": "24 h", flight: "flight" };

export const view = { ...DEFAULTS };

function parse(hash) {
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  const parsed = Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, params.get(name) ?? value]));
  for (const [name, known] of [["view", VIEWS], ["group", GROUPS], ["range", RANGES]]) {
    if (!Object.hasOwn(known, parsed[name])) parsed[name] = DEFAULTS[name];
  }
  return parsed;
}

/** The URL of this view with changes, without the values that are the defaults. */
export function link(changes = {}) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...view, ...changes })) if (value !== DEFAULTS[name]) params.set(name, value);
  return `#${params}`;
}

/** The words of a filter: `"two words"` are one, `a+b` are two that one row must have. */
const alternatives = (filter) => [...filter.toLowerCase().matchAll(/(?:"[^"]*"|[^\s"])+/g)].map(([word]) => [...word.matchAll(/"([^"]+)"|([^"+]+)/g)].map(([, quoted, plain]) => quoted ?? plain)).filter((all) => all.length);
export const filterWords = (filter) => alternatives(filter).map((all) => all.join(" with "));

/** A test of lower-case texts by a filter: words with a space between them are alternatives. */
export function matcher(filter) {
  const words = alternatives(filter);
  return (text) => !words.length || words.some((all) => all.every((word) => text.includes(word)));
}

let apply = () => {};

/** Goes to a view. Without `replace`, Back leads to the view before. */
export function go(changes, { replace = false } = {}) {
  const next = link(changes);
  if (next === link()) return;
  if (replace) history.replaceState(null, "", next);
  else history.pushState(null, "", next);
  arrive();
}

function arrive() {
  const before = { ...view };
  Object.assign(view, parse(location.hash));
  apply(before);
}

/** Calls `act` with the view before, at each change of the view and once now. */
export function follow(act) {
  apply = act;
  addEventListener("popstate", arrive);
  arrive();
}

export const states = () => new Set(view.state.split(",").filter(Boolean));
