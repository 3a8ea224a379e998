/** A placement's row as a bidder reads it, and the rules by which it is refused (docs/bidders.md). */

export const STALE_MS = 30_000;
export const WATERMARK_MS = 300_000;
const STEERABLE = new Set(["on_track", "under", "at_risk", "over"]);
const UNKNOWN = new Set(["unknown_before", "ended_unknown"]);

/** The fields that the rules need, in the order in which a row has them; the caller's fields follow. */
export const RULE_FIELDS = [
  "generation", "fence", "rev", "delivery.state", "delivery.judged", "delivery.unjudged_reason",
  "delivery.booked", "delivery.delivered", "delivery.projected",
  "5m.impressions", "1h.impressions", "flight.blocked_impressions",
];

const TEXTS = new Set([
  "campaign_id", "platform", "station", "podcast", "program", "creative_id", "app",
  "delivery.state", "delivery.alerted_state", "delivery.unjudged_reason", "delivery.unjudged_by",
  "delivery.currency", "delivery.delivered_before_source", "delivery.unknown_reason",
  "conversion_currency", "impression_basis", "reach_unit",
]);

/** A moment in ms, by a clock that nobody sets and by the wall clock. In a suspended machine only the second goes on. */
export const now = () => [performance.now(), Date.now()];

/** Compare two versions: below 0, 0 or above 0, as a difference of numbers. */
export const compare = (left, right) => left[0] - right[0] || left[1] - right[1] || left[2] - right[2];

const number = (text) => {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new RangeError(`not a number: ${text}`);
  return value;
};

export const integer = (text) => {
  if (!/^-?\d+$/.test(text ?? "")) throw new RangeError(`not an integer: ${text}`);
  return Number(text);
};

/**
 * The record of a row: the rules applied to its texts, which begin with those of `RULE_FIELDS`. Throws if the row's
 * version cannot be read.
 */
export function recordOf(texts, least, most) {
  const version = texts.slice(0, 3).map(integer);
  const [state, judged, reason, ...pacing] = texts.slice(3, 9);
  const [fiveMinutes, hour, blockedText] = texts.slice(9, 12);
  const unjudged = judged === null || judged === "1" ? null : reason || "unjudged";
  let refused = UNKNOWN.has(state) ? "unknown_before" : null;
  let blocked = 0, factor = null;
  try {
    blocked = blockedText === null ? 0 : integer(blockedText);
    const [booked, delivered, projected] = pacing.map((text) => (text === null ? null : number(text)));
    const stopped = fiveMinutes !== null && integer(fiveMinutes) === 0 && (hour === null || integer(hour) !== 0);
    const known = booked !== null && delivered !== null && projected !== null;
    if (known && STEERABLE.has(state) && !stopped && projected > delivered)
      // `delivery.projected` counts the flight's time without its pauses; `1h.impressions` counts both.
      factor = Math.min(Math.max((booked - delivered) / (projected - delivered), least), most);
  } catch {
    refused = "unreadable";
  }
  return { version, texts, unjudged, refused, blocked, factor };
}

/** The record of a row that Redis does not have. */
export const absentRecord = (version) =>
  ({ version, texts: [], unjudged: null, refused: "gone", blocked: 0, factor: null });

/** One version of a placement's row. A row never changes, except that it becomes `stale` with time. */
export class Row {
  #record;
  #horizon;
  #places;

  constructor(name, record, horizon, places) {
    this.name = name;
    this.#record = record;
    this.#horizon = horizon;
    this.#places = places;
    Object.freeze(this);
  }

  /** The reason not to act on this row; null if there is none. The reasons are those of the Python client. */
  get reason() {
    const { asked, leftMs, generation } = this.#horizon;
    const unjudged = this.#horizon.unjudged ?? this.#record.unjudged;
    if (unjudged !== null) return unjudged;
    const [rowGeneration] = this.#record.version;
    if (rowGeneration !== undefined && rowGeneration !== (generation ?? rowGeneration)) return "switching";
    if (now().some((time, clock) => time - asked[clock] > leftMs)) return "stale";
    return this.blocked ? "blocked" : this.#record.refused;
  }

  /** True if there is no reason not to act on this row. */
  get usable() {
    return this.reason === null;
  }

  /** The factor by which to multiply the present rate; null to leave the bid as it is. */
  get factor() {
    return this.usable ? this.#record.factor : null;
  }

  /** Impressions in blocked content that nobody has reviewed, even if the row is stale: stop at once. */
  get blocked() {
    return Math.max(0, this.#record.blocked - (this.#horizon.reviewed.get(this.name) ?? 0));
  }

  /** Generation, fence and rev. */
  get version() {
    return [...this.#record.version];
  }

  /** A field: a number (a BigInt if a number is not exact), a text, or null if it is unknown, never 0. */
  get(field) {
    const place = this.#places.get(field);
    if (place === undefined) throw new RangeError(`${field} is not read: name it in fields`);
    const text = this.#record.texts[place] ?? null;
    if (text === null || TEXTS.has(field)) return text;
    if (text.includes(".")) return number(text);
    return Number.isSafeInteger(integer(text)) ? integer(text) : BigInt(text);
  }
}
