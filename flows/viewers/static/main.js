// The live page: a table of the rows from /events, a pane of one row from /row, the URL, the keys and the stream.

import { drawAlerts } from "./alerts.js";
import { connection, drawMoney, freshness } from "./bar.js";
import "./compare.js";
import { drawCollectors } from "./collectors.js";
import { ORDERS, COLUMNS } from "./columns.js";
import { all, change, desk } from "./data.js";
import { $, make, narrow } from "./dom.js";
import { drawFiring } from "./firing.js";
import { how } from "./how.js";
import { dress, help, letters, nextTheme } from "./menus.js";
import { copied, saveCsv } from "./out.js";
import { show } from "./pane.js";
import { drawLive } from "./live.js";
import { drawPlatforms } from "./platforms.js";
import { chosenItem, draw, fold, move, pageSize, refresh } from "./table.js";
import { showTag } from "./tag.js";
import { GRIDS, GROUPS, VIEWS, follow, go, link, view } from "./view.js";

// ------------------------------------------------------------------ the view

$("tabs").replaceChildren(...Object.entries(VIEWS).map(([key, words]) => { const tab = make("a", "", words); tab.dataset.view = key; return tab; }));
$("group").replaceChildren(...Object.entries(GROUPS).map(([value, words]) => new Option(words, value)));
$("sort").replaceChildren(...Object.entries(ORDERS).map(([value, words]) => new Option(words, value)));

/** Scrolls the tabs, never the window, until the active one is whole. */
function tabInSight() {
  const [box, tab] = [$("tabs"), $("tabs").querySelector("[aria-current]")].map((one) => one.getBoundingClientRect());
  $("tabs").scrollLeft += Math.min(0, tab.left - box.left) + Math.max(0, tab.right - box.right);
}

function arrive(before) {
  for (const tab of $("tabs").children) {
    tab.href = link({ view: tab.dataset.view, open: "", sort: "", state: "" });
    if (tab.dataset.view === view.view) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  const grid = Object.hasOwn(GRIDS, view.view);
  $("desk").hidden = !grid;
  for (const part of ["alerts", "history", "live", "platforms", "collectors", "compare", "tag"]) $(part).hidden = view.view !== part;
  $("tools").hidden = !grid && !["alerts", "history", "live"].includes(view.view);
  document.body.dataset.view = view.view;
  if ($("filter").value !== view.q) $("filter").value = view.q;
  $("group").value = view.group;
  if (!Object.hasOwn(ORDERS, view.sort)) {
    const one = COLUMNS.find(({ key }) => key === view.sort.replace(/^-/, ""));
    $("sort").options[Object.keys(ORDERS).length] = new Option(`by ${one?.title ?? "?"}`, view.sort);
  }
  $("sort").value = view.sort;
  if (before.view !== view.view || before.q !== view.q || before.sort !== view.sort) $("scroll").scrollTop = 0;
  desk.dirty = true;
  show(before);
  redraw();
  showTag();
  tabInSight();
}

function redraw() {
  // A flow that counts by no app has no rows of apps.
  $("tabs").querySelector("[data-view=apps]").hidden = desk.rows.app.size === 0 && view.view !== "apps";
  refresh();
  drawMoney();
  drawFiring();
  drawAlerts();
  drawPlatforms();
  drawCollectors();
  drawLive();
}

// ------------------------------------------------------------------ keys

const after = (list, one) => list[(list.indexOf(one) + 1) % list.length];
function enter() {
  if (!chosenItem()) move(0);
  const item = chosenItem();
  if (item?.sum) fold(item);
  else if (item) go({ open: item.id });
}
const MOVES = {
  ArrowDown: () => move(1), ArrowUp: () => move(-1), PageDown: () => move(pageSize()), PageUp: () => move(-pageSize()),
  Home: () => move(-Infinity), End: () => move(Infinity), Enter: enter,
};
const LETTERS = {
  "/": () => $("filter").focus(),
  j: () => move(1), k: () => move(-1),
  c: () => { const item = chosenItem(); if (item && !item.sum) copied(item.id, "id"); },
  g: () => go({ group: after(Object.keys(GROUPS), view.group) }),
  s: () => go({ sort: after(Object.keys(ORDERS), view.sort) }),
  e: saveCsv, i: () => how(), t: nextTheme, "?": help,
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const { target, key } = event;
  if (target === $("filter")) {
    if (key === "Escape") go({ q: "" }, { replace: true });
    else if (key !== "Enter" && key !== "ArrowDown") return;
    event.preventDefault();
    $("scroll").focus();
    return;
  }
  if (target.closest("input, select, textarea, [popover]")) return;
  const onGrid = target === $("scroll") || target === document.body;
  const act = key === "Escape" && view.open ? () => go({ open: "" }) : onGrid && Object.hasOwn(MOVES, key) ? MOVES[key] : letters() && Object.hasOwn(LETTERS, key) ? LETTERS[key] : null;
  if (!act) return;
  event.preventDefault();
  act();
});

// ------------------------------------------------------------------ wires

$("filter").addEventListener("input", () => go({ q: $("filter").value }, { replace: true }));
$("group").addEventListener("change", () => go({ group: $("group").value }));
$("sort").addEventListener("change", () => go({ sort: $("sort").value }));
$("csv").addEventListener("click", saveCsv);
$("more").addEventListener("click", () => $("more").setAttribute("aria-expanded", String(document.body.classList.toggle("tools-open"))));
for (const place of [$("scroll"), window]) place.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
new ResizeObserver(() => refresh()).observe($("scroll"));
narrow.addEventListener("change", () => { desk.dirty = true; refresh(); });
setInterval(freshness, 500);

dress();
follow(arrive);
// A count on a tab moves the tabs behind it, and so does a tab that appears.
const tabSizes = new ResizeObserver(tabInSight);
for (const one of [$("tabs"), ...$("tabs").children]) tabSizes.observe(one);
let source = null;

// A browser does not reopen a refused stream. If the session has ended, the form begins another one.
function reconnect(ended) {
  if (ended) location.assign(`/login${location.hash}`);
  else setTimeout(connect, 10_000);
}

function connect() {
  source?.close();
  source = new EventSource("/events");
  source.addEventListener("open", () => connection(null));
  source.addEventListener("error", () => {
    connection(performance.now());
    if (source.readyState === EventSource.CLOSED) fetch("/row").then(({ status }) => status === 401, () => false).then(reconnect);
  });
  for (const [name, take] of [["all", all], ["change", change]]) {
    source.addEventListener(name, (event) => {
      take(JSON.parse(event.data));
      connection(null);
      redraw();
    });
  }
}

connect();
// A browser holds a page for Back, with its stream, and opens six streams to a host: the next page would wait.
addEventListener("pagehide", () => source.close());
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
