// Platforms side by side: which shares of their plays tell a start, a quartile, a listener, and how late they are.

import { $, make } from "./dom.js";
import { table } from "./collectors.js";
import { link, view } from "./view.js";
import { NULL, numeral, percent, span, whole } from "./words.js";

const EVERY_MS = 2000;
let askedAt = -Infinity;

/** Heading, what it counts, and the field of a platform's row. */
const SHARES = [
  ["start", "1d.start_share"], ["25 %", "1d.first_quartile_share"], ["50 %", "1d.midpoint_share"], ["75 %", "1d.third_quartile_share"],
  ["end", "1d.complete_share"], ["listener", "1d.listener_share"], ["play id", "1d.play_id_share"],
  ["consent", "flight.consent_coverage"], ["macro left", "unreplaced_share"],
];

/** A share that differs by so much from the platforms' median is marked; of macros left and delay more is worse. */
const FAR = 0.25, FEWEST = 3, LATE = 4, LEFT = 0.05;

/** The median of the numbers that are known; NaN of fewer than three. */
function median(values) {
  const known = values.filter(Number.isFinite).sort((a, b) => a - b);
  return known.length < FEWEST ? NaN : (known[(known.length - 1) >> 1] + known[known.length >> 1]) / 2;
}

/** Marks a cell that stands apart, with the median that it stands apart from. */
function mark(cell, sign, words) {
  cell.classList.add("outlier");
  cell.prepend(`${sign} `);
  cell.title = words;
}

/** Links each platform to its placements, and marks what differs from the other platforms. */
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

/** Asks anew where the section is in sight and the last answer is old. */
export async function drawPlatforms() {
  if ($("platforms").hidden || performance.now() - askedAt < EVERY_MS) return;
  askedAt = performance.now();
  let told;
  try {
    const answer = await fetch("/api/platforms");
    if (!answer.ok) throw new Error();
    told = await answer.json();
  } catch {
    $("platforms-body").replaceChildren(make("p", "soft", "The exporter shows this reader no platforms."));
    return;
  }
  if (view.view === "platforms") $("platforms-body").replaceChildren(...sections(told));
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
    make("p", "soft", "A platform leads to its placements. ▼ marks a share far below the platforms' median, ▲ a delay far above it or macros left. Plays are today's impressions, or starts where these are more. Play id is a share of starts. Consent and delay are of all pixels since the platform's first, macros of what the collectors took since they started."),
  ];
}
