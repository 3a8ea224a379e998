// The curve of one row: impressions against the plan, over a range, readable with a pointer, by keys, or as text.

import { $, make, setText } from "./dom.js";
import { NULL, moment, whole } from "./words.js";
/* global uPlot: vendor/uPlot.iife.min.js */

let chart = null, data = [[], [], []];
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const words = (value) => (value === null || value === undefined ? NULL : whole(value));

/** Writes the values at a place; without a place the latest values. */
function read(place) {
  const at = place ?? data[0].length - 1;
  setText($("p-legend"), data[0].length ? `${moment(data[0][at] * 1000)}: delivered ${words(data[1][at])}, due ${words(data[2][at])} impressions` : "No curve yet: the exporter stores it from its start on.");
}

export function forget() {
  chart?.destroy();
  chart = null;
}

const MIN_S = 120;

/** Draws a curve between two moments, in epoch s; the axis begins with the first point unless the flight is drawn whole. */
export function drawChart({ at_s: at, impressions, expected }, from_s, to_s, whole_flight) {
  data = [at, impressions, expected];
  const box = $("p-chart"), width = box.clientWidth;
  if (chart && chart.width === width) chart.setData(data);
  else { forget(); chart = plot(box, width); }
  if (Number.isFinite(from_s) && Number.isFinite(to_s)) chart.setScale("x", { min: whole_flight ? from_s : Math.min(Math.max(from_s, at[0] ?? from_s), to_s - MIN_S), max: to_s });
  if (chart.cursor.idx === null || chart.cursor.idx === undefined) read(null);
}

function plot(box, width) {
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" }), day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
  const incrs = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 7200].map((minutes) => 60 * minutes);
  const time = (_, ticks) => ticks.map((tick) => (ticks.at(-1) - ticks[0] > 86400 ? day : hour).format(tick * 1000));
  return new uPlot({
    width, height: 150, cursor: { y: false }, legend: { show: false },
    axes: [{ ...axis, size: 26, values: time, incrs, space: 64 }, { ...axis, size: 64, values: (_, ticks) => ticks.map(whole) }],
    series: [
      {},
      { stroke: colour("--accent"), width: 2, points: { show: false } },
      { stroke: colour("--plan"), width: 2, dash: [5, 4], points: { show: false } },
    ],
    hooks: { setCursor: [(one) => read(one.cursor.idx)] },
  }, data, box);
}

/** Arrow keys move along a curve. */
export function step(event, chart, at, read) {
  if (!chart || !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
  event.preventDefault();
  event.stopPropagation();
  const last = at.length - 1, now = chart.cursor.idx ?? last;
  const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
  const place = Math.max(0, Math.min(last, next));
  chart.setCursor({ left: chart.valToPos(at[place], "x"), top: 0 });
  read(place);
}

export const keys = (event) => step(event, chart, data[0], read);

export const legend = () => [make("span", "key delivered", "delivered"), make("span", "key due", "due by the plan")];
