// The course of a flight: impressions a minute against the needed rate, the projection to the end, and the marks.

import { colour, step } from "./chart.js";
import { $, make, setText } from "./dom.js";
import { stateOf } from "./data.js";
import { view } from "./view.js";
import { moment, stateWords, unitWords, whole } from "./words.js";
/* global uPlot: vendor/uPlot.iife.min.js */

const EVERY_MS = 10000, RETRY_MS = 3000, MOST_BARS = 240, MINUTE_S = 60, AHEAD = 0.15;
const RANGE_S = { "1h": 3600, "6h": 6 * 3600, "24h": 24 * 3600 };
const COUNTS = [0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap((power) => [1, 2, 5].map((one) => one * 10 ** power));  // whole impressions
let chart = null, data = [[], [], [], []], wholeBars = 0, bars = 1, readAt = -Infinity, placement = "", course = null;

/** Reads the course of a placement if the last answer is old, and draws it; an empty name: the row has no course. */
export async function drawCourse(name) {
  if (name !== placement) { placement = name; course = null; readAt = -Infinity; forgetCourse(); }
  $("p-course").hidden = !course;
  if (!name || performance.now() - readAt < EVERY_MS) return course && draw();
  readAt = performance.now();
  try {
    const answer = await fetch(`/v1/placements/${encodeURIComponent(name)}/course`);
    if (!answer.ok) throw new Error();
    const body = await answer.json();
    if (name !== placement) return;
    course = body;
  } catch {
    if (name !== placement) return;
    course = null;
    readAt += RETRY_MS - EVERY_MS;
  }
  $("p-course").hidden = !course;
  if (course) draw();
}

export function forgetCourse() {
  chart?.destroy();
  chart = null;
}

/** Draws again after a change of the range or of the width. */
export function redrawCourse() {
  forgetCourse();
  if (course) draw();
}

function draw() {
  const { minutes, flight, needed_per_minute: needed, projected_per_minute: projected, as_of_ms: asOf } = course;
  const now = (asOf ?? minutes.at_ms.at(-1) ?? Date.now()) / 1000, start = (flight.start_ms ?? NaN) / 1000, end = (flight.end_ms ?? NaN) / 1000;
  const whole_flight = view.range === "flight" && Number.isFinite(start), length = RANGE_S[view.range] ?? now - start;
  const first = minutes.at_ms.length ? minutes.at_ms[0] / 1000 : now;
  const from = Math.max(now - length, whole_flight ? start : Math.min(first, now - 600)), to = whole_flight && end > now ? end : Math.min(Number.isFinite(end) && end > now ? end : now, now + AHEAD * (now - from));
  bars = Math.max(1, Math.ceil((now - from) / MINUTE_S / MOST_BARS));
  const at = [], counts = [];
  let unfinished = 0;
  for (let place = minutes.at_ms.length; place > 0; place -= bars) {
    const begin = Math.max(0, place - bars), part = minutes.impressions.slice(begin, place), begun = minutes.at_ms[begin] / 1000;
    if (begun < from - bars * MINUTE_S) break;
    at.unshift(begun);
    if (minutes.at_ms[place - 1] / 1000 + MINUTE_S > now) unfinished += 1;
    counts.unshift(part.reduce((sum, one) => sum + one, 0) / part.length);
  }
  wholeBars = counts.length - unfinished;
  const ahead = to > now && projected !== null ? [now, to] : [];
  data = [[...at, ...ahead], [...counts, ...ahead.map(() => null)], [...at, ...ahead].map(() => needed), [...at.map(() => null), ...ahead.map(() => projected)]];
  const box = $("p-course-chart"), width = box.clientWidth;
  if (!width) return;
  if (!chart || chart.width !== width) { forgetCourse(); chart = plot(box, width, to - from); }
  chart.setData(data, false);
  chart.batch(() => {
    chart.setScale("x", { min: from, max: Math.max(to, from + 2 * MINUTE_S) });
    chart.setScale("y", { min: 0, max: 1.1 * Math.max(1, needed ?? 0, projected ?? 0, ...counts) });
  });
  if (chart.cursor.idx === null || chart.cursor.idx === undefined) read(null);
  drawMarks(course.marks.filter(({ at_ms: ms, until_ms: until }) => (until ?? ms) / 1000 >= from && ms / 1000 <= to));
}

/** Writes the values at a place; without a place those of the last whole minute, since a minute under way counts too few. */
function read(place) {
  const at = place ?? (wholeBars ? wholeBars - 1 : data[1].findLastIndex((one) => one !== null));
  if (at < 0 || !data[0].length) { setText($("p-course-legend"), "No minute is known yet."); return; }
  const [count, needed, projected] = [data[1][at], data[2][at], data[3][at]], parts = [];
  if (count !== null) parts.push(`${whole(Math.round(count))} impression${Math.round(count) === 1 ? "" : "s"} a minute`);
  if (projected !== null) parts.push(`projected ${whole(Math.round(projected))} a minute`);
  if (needed !== null) parts.push(`needed ${whole(Math.ceil(needed))}`);
  setText($("p-course-legend"), `${moment(data[0][at] * 1000)}${count !== null && at >= wholeBars ? ", not over yet" : ""}: ${parts.join(", ")}`);
}

/** A mark in words. */
function markWords({ kind, from, to, unit, until_ms: until, booked_before: before }) {
  if (kind === "state") return `${stateWords(stateOf(to))}, before ${stateWords(stateOf(from))}`;
  if (kind === "plan") return `the plan was changed${before ? `, from ${whole(before)} booked` : ""}`;
  return `${unitWords(unit ?? "")} silent${until ? ` until ${moment(until)}` : ""}`;
}

function drawMarks(marks) {
  const key = JSON.stringify(marks);
  if ($("p-marks").key === key) return;
  $("p-marks").key = key;
  $("p-marks").replaceChildren(...marks.slice(-6).reverse().map((mark) => make("li", "", make("time", "soft", moment(mark.at_ms)), " ", Object.assign(make("span", "", markWords(mark)), { dir: "auto" }))));
}

const MARK_COLOURS = { state: "--text", feed: "--amber", plan: "--blue" };

function paintMarks(graph) {
  const { ctx, bbox } = graph, at = (ms) => graph.valToPos(ms / 1000, "x", true);
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const { kind, at_ms: ms, until_ms: until, to } of course?.marks ?? []) {
    const x = at(ms), bad = kind === "state" && (to === "under" || to === "at_risk");
    ctx.fillStyle = ctx.strokeStyle = colour(bad ? "--red" : MARK_COLOURS[kind] ?? "--text");
    if (kind === "feed") { ctx.globalAlpha = 0.2; ctx.fillRect(x, bbox.top, (until ? at(until) : bbox.left + bbox.width) - x, bbox.height); ctx.globalAlpha = 1; }
    ctx.setLineDash([2, 3]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.fillRect(x - 3, bbox.top, 6, 6);
  }
  ctx.restore();
}

function plot(box, width, seconds) {
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" }), day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
  const incrs = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 7200].map((minutes) => 60 * minutes);
  return new uPlot({
    width, height: 150, cursor: { y: false }, legend: { show: false },
    scales: { x: { time: true, auto: false }, y: { auto: false } },
    axes: [{ ...axis, size: 26, values: (_, ticks) => ticks.map((tick) => (seconds > 172800 ? day : hour).format(tick * 1000)), incrs, space: 64 }, { ...axis, size: 56, incrs: COUNTS, values: (_, ticks) => ticks.map(whole) }],
    series: [
      {},
      { fill: colour("--spark"), stroke: colour("--spark"), width: 0, paths: uPlot.paths.bars({ size: [0.9, 14], align: 1 }), points: { show: false } },
      { stroke: colour("--plan"), width: 2, dash: [5, 4], points: { show: false } },
      { stroke: colour("--accent"), width: 2, dash: [2, 3], points: { show: false } },
    ],
    hooks: { setCursor: [(one) => read(one.cursor.idx)], draw: [paintMarks] },
  }, data, box);
}

$("p-course-plot").addEventListener("keydown", (event) => step(event, chart, data[0], read));
