// The difference between their number and ours: a chart of the open row from ours to theirs, and a table of the parts.

import { $, make, setText } from "./dom.js";
import { explained, figure } from "./how.js";
import { percent, whole } from "./words.js";

const BAR = 20, STEP = 28, REST = "unexplained";
let drawn = "", chosenLabel = "";

/** The bands of a difference, in words that can be sent. */
export const BANDS = { fine: "usual", look: "worth a look", breach: "over the tolerance" };
export const signed = (count) => (count > 0 ? `+${whole(count)}` : whole(count));
const label = (row) => (row.counted === "impressions" ? row.when : `${row.when}, ${row.counted}`);

/** Draws others' counts of a row; hides the section without a watched file. */
export function drawWaterfall(theirs) {
  const section = $("p-theirs");
  section.hidden = !theirs || (!theirs.rows.length && !theirs.error);
  const now = section.hidden ? "" : JSON.stringify([theirs, section.clientWidth, chosenLabel]);
  if (now === drawn) return;
  drawn = now;
  if (section.hidden) return;
  const { rows, error } = theirs, names = rows.map(label);
  if (!names.includes(chosenLabel)) chosenLabel = names[0] ?? "";
  $("p-theirs-when").replaceChildren(...names.map((name) => new Option(name, name, false, name === chosenLabel)));
  $("p-theirs-choice").hidden = rows.length < 2;
  setText($("p-theirs-error"), error ? `Their counts cannot be read: ${error}` : "");
  const row = rows[names.indexOf(chosenLabel)];
  $("p-theirs-body").hidden = !row;
  if (row) fill(row);
}

function fill(row) {
  const share = row.share === null ? "" : ` (${percent(row.share, 1)})`, tolerance = row.tolerance === null ? "" : `, by the plan's tolerance of ${percent(row.tolerance, 1)}`;
  const note = row.note ? ` ${row.note[0].toUpperCase()}${row.note.slice(1)}.` : "";
  $("p-theirs-sum").replaceChildren(
    `${label(row)}: theirs `, figure(whole(row.theirs), explained("their count", { counts: "The number in the watched file of their counts." })),
    ", ours ", row.ours === null ? "not known" : figure(whole(row.ours), row.counted),
    row.ours === null ? `: ${row.band}.${note}` : `, difference ${signed(row.difference)}${share}: ${BANDS[row.band] ?? row.band}${tolerance}.${note}`);
  $("p-theirs-sum").dataset.band = row.band;
  if (row.ours === null) return [$("p-theirs-chart"), $("p-theirs-parts")].forEach((one) => one.replaceChildren());
  const parts = row.parts.filter((part) => part.impressions);
  $("p-theirs-chart").replaceChildren(...chart(row, stepsOf(row), Math.max(280, $("p-theirs-body").clientWidth)));
  $("p-theirs-parts").replaceChildren(
    ...parts.map((part) => line(part.name, part.impressions, part.said, part.behind)),
    line(REST, row.unexplained, "what no part explains", ""));
}

const stepsOf = (row) => [...row.parts.filter((part) => part.impressions).map((part) => [part.name, part.impressions]), ...(row.unexplained ? [[REST, row.unexplained]] : [])];

/** The chart of a row and the list of its parts, as elements. */
export function waterfall(row, width) {
  const parts = row.parts.filter((part) => part.impressions);
  const heads = make("tr", "", ...["part", "count", "what it is"].map((words, place) => Object.assign(make("th", place === 1 ? "" : "left", words), { scope: "col" })));
  const body = [...parts.map((part) => [part.name.replaceAll("_", " "), part.impressions, part.said]), [REST, row.unexplained, "what no part explains"]];
  const table = make("table", "", make("thead", "", heads), make("tbody", "", ...body.map(([name, count, said]) => make("tr", "", Object.assign(make("th", "left", name), { scope: "row" }), make("td", "", signed(count)), make("td", "left", said)))));
  const wide = Object.assign(make("div", "wide", table), { tabIndex: 0, role: "group", ariaLabel: "Parts of the difference" });
  return [...chart(row, stepsOf(row), width), wide];
}

function line(name, count, said, behind) {
  const head = Object.assign(make("th", "left", name), { scope: "row" }), what = make("td", "left", said);
  const sentences = { counts: `${said[0].toUpperCase()}${said.slice(1)}: a signed part of theirs less ours, by the day of the caller's clock.`, ...(behind ? { "where to look": behind } : {}) };
  if (behind) what.append(make("br"), make("code", "", behind));
  return make("tr", "", head, make("td", "", figure(signed(count), explained(`part ${name}`, sentences))), what);
}

/** Bars from ours to theirs, each part beginning where the one before ended. The axis begins at 0; where the parts would then be too small to see it is cut, the bars that it cuts show a break, and a sentence says so. */
function chart(row, steps, width) {
  const left = Math.min(190, width * 0.42), right = 64;
  const spans = [];
  let at = row.ours;
  for (const [name, count] of steps) spans.push([name, at, (at += count), count]);
  const ends = [row.ours, row.theirs, ...spans.map((span) => span[2])], high = Math.max(...ends), least = Math.min(...ends);
  const cut = least > 4 * Math.max(1, high - least), low = cut ? least - Math.max(1, high - least) : 0, scale = (width - left - right) / Math.max(1, high - low);
  const svg = node("svg", { viewBox: `0 0 ${width} ${(spans.length + 2) * STEP}`, role: "img" });
  svg.setAttribute("aria-label", `From ours, ${whole(row.ours)}, to theirs, ${whole(row.theirs)}: ${steps.map(([name, count]) => `${name} ${signed(count)}`).join(", ") || "no difference"}`);
  const bar = (place, name, from, to, words, kind) => {
    const [begin, end] = [from, to].map((value) => left + (value - low) * scale).toSorted((a, b) => a - b), y = place * STEP;
    svg.append(
      text(0, y + 15, name, left - 8), node("rect", { x: begin.toFixed(1), y, width: Math.max(1.5, end - begin).toFixed(1), height: BAR, rx: 2, class: `w-${kind}` }), text(end + 5, y + 15, words, 0));
  };
  const broken = (place) => { for (const shift of [10, 16]) svg.append(node("line", { x1: left + shift - 3, x2: left + shift + 3, y1: place * STEP + BAR + 3, y2: place * STEP - 3, class: "w-break" })); };
  bar(0, "ours", low, row.ours, whole(row.ours), "ends");
  spans.forEach(([name, from, to, count], place) => bar(place + 1, name, from, to, signed(count), name === REST ? "rest" : count > 0 ? "plus" : "minus"));
  bar(spans.length + 1, "theirs", low, row.theirs, whole(row.theirs), "ends");
  if (cut) [0, spans.length + 1].forEach(broken);
  return [svg, make("p", "soft", cut ? `The axis is cut: the bars begin at ${whole(low)}, not at 0.` : "The axis begins at 0.")];
}

function node(name, attributes) {
  const one = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  return one;
}

/** A text, cut to `width` pixels if this is not 0: about seven pixels a letter. */
function text(x, y, words, width) {
  const one = node("text", { x, y }), most = Math.floor(width / 7);
  one.textContent = width && words.length > most ? `${words.slice(0, most - 1)}…` : words;
  return one;
}

$("p-theirs-when").addEventListener("change", (event) => { chosenLabel = event.target.value; drawn = ""; });
