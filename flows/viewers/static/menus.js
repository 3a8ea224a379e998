// The `?` sheet, the choice of columns, the saved views, and the theme.

import { COLUMNS, COLUMN_GROUPS, column, columnsFor } from "./columns.js";
import { $, button, make, say, setText, storage, term } from "./dom.js";
import { forget } from "./chart.js";
import { redrawCourse } from "./course.js";
import { go, link } from "./view.js";
import { STATES } from "./words.js";

// ------------------------------------------------------------------ the sheet

export const KEYS_SHOWN = [
  ["/", "to the filter"], ["j k, arrows", "next or previous row"], ["Enter", "open the row, fold or unfold a group"], ["Esc", "close, or empty the filter"],
  ["c", "copy the row's id"], ["g", "next grouping"], ["s", "next order"], ["e", "save what is shown as CSV"], ["i", "how a number is counted; a click on the number does the same"], ["t", "theme"], ["?", "this sheet"],
];
const BAR = [
  ["flushed", "How long ago the flow last wrote to Redis."],
  ["watermark", "The age of the numbers: all pixels up to then are counted."],
  ["pixels/s", "Pixels received in a second, over ten seconds."],
  ["repeated, rejected, invalid", "Shares of the received pixels: counted before, not valid, invalid traffic."],
  ["conversions pending", "Conversions that wait until their touches are complete."],
  ["final", "A minute is final when nothing can change it any more."],
];
export const letters = () => storage.get("letters") !== "off";

export function help() {
  const list = (pairs, key) => make("dl", "", ...pairs.map(([name, words]) => {
    const line = term(key ? "" : name, words);
    if (key) line.firstChild.append(...name.split(", ").map((one) => make("kbd", "", one)));
    return line;
  }));
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  $("help-body").replaceChildren(
    make("h3", "", "Keys"), list(KEYS_SHOWN, true),
    make("h3", "", "Columns"), list(COLUMNS.map(({ title, unit, means }) => [title, unit ? `${means} Unit: ${unit === "money" ? "the plan's currency" : unit}.` : means])),
    make("h3", "", "States"), list(Object.values(STATES)),
    make("h3", "", "The bar"), list(BAR),
    make("p", "soft", `Times are those of this browser's zone, ${zone}. The order "needs attention first" puts blocked content first, then under, then at risk, each by what is at stake.`),
  );
  $("letters").checked = letters();
  $("help").showModal();
}

$("letters").addEventListener("change", () => storage.set("letters", $("letters").checked ? "on" : "off"));
$("help-open").addEventListener("click", help);
$("help-close").addEventListener("click", () => $("help").close());

// ------------------------------------------------------------------ columns

$("columns").addEventListener("toggle", (event) => {
  if (event.newState !== "open") return;
  const shown = new Set(columnsFor($("scroll").clientWidth).map(({ key }) => key));
  const choice = ({ key, title, means }) => {
    const box = Object.assign(make("input"), { type: "checkbox", checked: shown.has(key) });
    box.addEventListener("change", () => {
      shown[box.checked ? "add" : "delete"](key);
      go({ cols: COLUMNS.filter((one) => shown.has(one.key)).map((one) => one.key).join() }, { replace: true });
    });
    const line = make("label", "", box, title);
    line.title = means;
    return line;
  };
  $("column-list").replaceChildren(...Object.entries(COLUMN_GROUPS).map(([name, keys]) => make("fieldset", "", make("legend", "", name), ...keys.map((key) => choice(column(key))))));
});
$("columns-usual").addEventListener("click", () => { $("columns").hidePopover(); go({ cols: "" }); });

// ------------------------------------------------------------------ saved views

const MAX_VIEWS = 50;

function saved() {
  try {
    const views = JSON.parse(storage.get("views") ?? "[]");
    return Array.isArray(views) ? views.filter((one) => typeof one?.name === "string" && typeof one?.url === "string" && one.url.startsWith("#")) : [];
  } catch { return []; }
}

function drawViews() {
  const views = saved();
  $("view-list").replaceChildren(...(views.length ? views.map(({ name, url }) => make("li", "",
    Object.assign(make("a", "", name), { href: url }),
    button("×", () => { storage.set("views", JSON.stringify(saved().filter((one) => one.name !== name))); drawViews(); }, { ariaLabel: `Remove the view ${name}` }))) : [make("li", "soft", "None yet.")]));
}

$("views").addEventListener("toggle", (event) => { if (event.newState === "open") drawViews(); });
$("view-list").addEventListener("click", (event) => { if (event.target.closest("a")) $("views").hidePopover(); });
$("view-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("view-name").value.trim();
  if (!name) return;
  storage.set("views", JSON.stringify([{ name, url: link({ open: "" }) }, ...saved().filter((one) => one.name !== name)].slice(0, MAX_VIEWS)));
  $("view-name").value = "";
  drawViews();
  say(`view ${name} saved`);
});

// ------------------------------------------------------------------ theme

const THEMES = ["auto", "dark", "light"];
let theme = THEMES.includes(storage.get("theme")) ? storage.get("theme") : "auto";

export function dress(next = theme) {
  theme = next;
  storage.set("theme", theme);
  document.documentElement.dataset.theme = theme;
  setText($("theme"), "◐");
  $("theme").title = `Theme: ${theme}`;
  $("theme").ariaLabel = `Theme: ${theme}`;
  forget();
  redrawCourse();
}

export const nextTheme = () => dress(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
$("theme").addEventListener("click", nextTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dress());
