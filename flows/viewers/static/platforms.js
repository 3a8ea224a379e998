// Platforms side by side: which shares of their plays tell a start, a quartile, a listener, and how late they are.

import { $, make } from "./dom.js";
import { table } from "./collectors.js";
import { view } from "./view.js";
import { NULL, numeral, percent, span, whole } from "./words.js";

const EVERY_MS = 2000;
let askedAt = -Infinity;

/** Heading, what it counts, and the field of a platform's row. */
const SHARES = [
  ["start", "1d.start_share"], ["25 %", "1d.first_quartile_share"], ["50 %", "1d.midpoint_share"], ["75 %", "1d.third_quartile_share"],
  ["end", "1d.complete_share"], ["listener", "1d.listener_share"], ["play id", "1d.play_id_share"],
  ["consent", "flight.consent_coverage"], ["macro left", "unreplaced_share"],
];

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
    $("platforms-body").replaceChildren(make("p", "soft", "The exporter does not tell of platforms."));
    return;
  }
  if (view.view === "platforms") $("platforms-body").replaceChildren(...sections(told));
}

function sections({ error, platforms }) {
  const parts = error ? [make("p", "trouble", `Redis cannot be read (${error}): these figures are old.`)] : [];
  const rows = platforms.map((row) => {
    const n = (field) => numeral(row[field]), plays = Math.max(n("1d.impressions"), n("1d.starts") + n("1d.unlinked_starts"));
    const delay = n("flight.delay_p50_seconds");
    return [row.platform, whole(plays), ...SHARES.map(([, field]) => percent(n(field), 1)), Number.isFinite(delay) ? `≤ ${span(delay)}` : NULL];
  });
  const metrics = [, "impressions", ...SHARES.map(([, field]) => (field.includes(".") ? field.split(".")[1] : "macro left")), "delay_p50_seconds"];
  const box = table("Shares of today's plays", ["platform", "plays", ...SHARES.map(([title]) => title), "median delay"], rows, 1, metrics);
  return [...parts, box,
    make("p", "soft", "Plays are today's impressions, or starts where these are more. Play id is a share of starts. Consent and delay are of all pixels since the platform's first, macros of what the collectors took since they started."),
  ];
}
