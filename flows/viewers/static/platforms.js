// Platforms side by side: the shares of their plays with a start, a quartile or a listener, and their delay.

import { $, make } from "./dom.js";
import { table } from "./collectors.js";
import { link, view } from "./view.js";
import { NULL, numeral, percent, span, whole } from "./words.js";

const EVERY_MS = 2000;
let readAt = -Infinity;

/** Headings, and the fields of a platform's row. */
const SHARES = [
  ["start", "1d.start_share"], ["25 %", "1d.first_quartile_share"], ["50 %", "1d.midpoint_share"], ["75 %", "1d.third_quartile_share"],
  ["end", "1d.complete_share"], ["listener", "1d.listener_share"], ["play id", "1d.play_id_share"],
  ["consent", "flight.consent_coverage"], ["macro left", "unreplaced_share"],
];

/** The difference of a share from the platforms' median that is marked, the fewest platforms of a median, the marked multiple of the median delay, and the marked share of macros left. */
const FAR = 0.25, FEWEST = 3, LATE = 4, LEFT = 0.05;

/** The median of the known numbers; NaN of fewer than three. */
function median(values) {
  const known = values.filter(Number.isFinite).sort((a, b) => a - b);
  return known.length < FEWEST ? NaN : (known[(known.length - 1) >> 1] + known[known.length >> 1]) / 2;
}

/** Marks a cell that differs from the median; the cell's title shows the median. */
function mark(cell, sign, words) {
  cell.classList.add("outlier");
  cell.prepend(`${sign} `);
  cell.title = words;
}

/** Links each platform to its placements, and marks the cells that differ from the other platforms. */
function dress(box, platforms) {
  const lines = [...box.querySelectorAll("tbody tr")], value = (row, field) => numeral(row[field]);
  if (!platforms.length) return;
  const medians = new Map([...SHARES.map(([, field]) => field), "flight.delay_p50_seconds"].map((field) => [field, median(platforms.map((row) => value(row, field)))]));
  platforms.forEach((row, place) => {
    const cells = lines[place].cells;
    cells[0].replaceChildren(Object.assign(make("a", "", row.platform), { dir: "auto", href: link({ view: "placements", q: `"${row.platform.replaceAll('"', "")}"`, state: "", open: "" }) }));
    SHARES.forEach(([, field], nth) => {
      const own = value(row, field), usual = medians.get(field), cell = cells[nth + 2];
      if (field === "unreplaced_share" ? own > LEFT : usual - own > FAR || (own === 0 && usual > 0.05)) mark(cell, field === "unreplaced_share" ? "▲" : "▼", `The median of the platforms is ${percent(usual, 1)}.`);
    });
    const delay = value(row, "flight.delay_p50_seconds"), usual = medians.get("flight.delay_p50_seconds");
    if (delay > LATE * usual) mark(cells[cells.length - 1], "▲", `The median of the platforms is ${span(usual)}.`);
  });
}

/** Reads the platforms again if their section is visible and the last answer is old. */
export async function drawPlatforms() {
  if ($("platforms").hidden || performance.now() - readAt < EVERY_MS) return;
  readAt = performance.now();
  let body;
  try {
    const answer = await fetch("/api/platforms");
    if (!answer.ok) throw new Error();
    body = await answer.json();
  } catch {
    $("platforms-body").replaceChildren(make("p", "soft", "The exporter shows this reader no platforms."));
    return;
  }
  if (view.view === "platforms") $("platforms-body").replaceChildren(...sections(body));
}

function sections({ error, platforms }) {
  const parts = error ? [make("p", "trouble", `Redis cannot be read (${error}): these figures are old.`)] : [];
  const rows = platforms.map((row) => {
    const n = (field) => numeral(row[field]), started = (n("1d.starts") || 0) + (n("1d.unlinked_starts") || 0), plays = Math.max(n("1d.impressions") || 0, started);
    const delay = n("flight.delay_p50_seconds");
    return [row.platform, whole(plays), ...SHARES.map(([, field]) => percent(n(field), 1)), Number.isFinite(delay) ? `≤ ${span(delay)}` : NULL];
  });
  const metrics = [, "impressions", ...SHARES.map(([, field]) => (field.includes(".") ? field.split(".")[1] : "macro left")), "delay_p50_seconds"];
  const box = table("Shares of today's plays", ["platform", "plays", ...SHARES.map(([title]) => title), "median delay"], rows, 1, metrics);
  dress(box, platforms);
  return [...parts, box,
    make("p", "soft", "A platform leads to its placements. ▼ marks a share far below the platforms' median, ▲ a delay far above it or macros left. Plays are today's impressions, or starts where these are more. Play id is a share of starts. Consent and delay are of all pixels since the platform's first, macros of the pixels that the collectors took since they started."),
  ];
}
