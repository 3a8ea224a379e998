/** A placement's row as a bidder reads it, and the rules by which it is refused (docs/bidders.md). */

export const STALE_MS = 30_000;
export const WATERMARK_MS = 300_000;
const STEERABLE = new Set(["on_track", "under", "at_risk", "over"]);
const UNKNOWN = new Set(["unknown_before", "ended_unknown"]);

/** The fields that the rules need, in the order in which a row has them; those of the caller follow. */
export const OWN = [
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

/** A moment by a clock that nobody sets, and by the wall clock: a suspended machine stops the first. */
export const now = () => [performance.now(), Date.now()];

/** Compares versions; as of numbers, 0 is equal. */
export const compare = (one, other) => one[0] - other[0] || one[1] - other[1] || one[2] - other[2];

const number = (text) => {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new RangeError(`not a number: ${text}`);
  return value;
};

export const whole = (text) => {
  if (!/^-?\d+$/.test(text ?? "")) throw new RangeError(`not an integer: ${text}`);
  return Number(text);
};

/** What the rules say of a row; `texts` begin with those of `OWN`. Throws where its version cannot be read. */
export function recordOf(texts, least, most) {
  const version = texts.slice(0, 3).map(whole);
  const [state, judged, why, ...pacing] = texts.slice(3, 9);
  const [last, hour, blockedText] = texts.slice(9, 12);
  const unjudged = judged === null || judged === "1" ? null : why || "unjudged";
  let refused = UNKNOWN.has(state) ? "unknown_before" : null;
  let blocked = 0, factor = null;
  try {
    blocked = blockedText === null ? 0 : whole(blockedText);
    const [booked, delivered, projected] = pacing.map((text) => (text === null ? null : number(text)));
    const stopped = last !== null && whole(last) === 0 && (hour === null || whole(hour) !== 0);
    const known = booked !== null && delivered !== null && projected !== null;
    if (known && STEERABLE.has(state) && !stopped && projected > delivered)
      // `delivery.projected` goes by the flight alone, and knows its pauses; `1h.impressions` does not.
      factor = Math.min(Math.max((booked - delivered) / (projected - delivered), least), most);
  } catch {
    refused = "unreadable";
  }
  return { version, texts, unjudged, refused, blocked, factor };
}

/** The record of a row that is not there. */
export const gone = (version) =>
  ({ version, texts: [], unjudged: null, refused: "gone", blocked: 0, factor: null });

/** One version of a placement's row. It does not change; with time it becomes `stale` by itself. */
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

  /** The reason not to act on it; null: there is none. The reasons are those of the Python client. */
  get reason() {
    const { unjudged, asked, leftMs, generation } = this.#horizon;
    const why = unjudged ?? this.#record.unjudged;
    if (why !== null) return why;
    const [own] = this.#record.version;
    if (own !== undefined && own !== (generation ?? own)) return "switching";
    if (now().some((time, clock) => time - asked[clock] > leftMs)) return "stale";
    return this.blocked ? "blocked" : this.#record.refused;
  }

  /** True if it may be acted on. */
  get usable() {
    return this.reason === null;
  }

  /** What the present rate is to be multiplied by; null: leave the bid as it is. */
  get factor() {
    return this.usable ? this.#record.factor : null;
  }

  /** Impressions in blocked content that nobody has reviewed, also by old numbers: stop at once. */
  get blocked() {
    return Math.max(0, this.#record.blocked - (this.#horizon.reviewed.get(this.name) ?? 0));
  }

  /** Generation, fence and rev. */
  get version() {
    return [...this.#record.version];
  }

  /** A field: a number (a BigInt where a number is not exact), a text, or null where it is not known, never 0. */
  get(field) {
    const place = this.#places.get(field);
    if (place === undefined) throw new RangeError(`${field} is not read: name it in fields`);
    const text = this.#record.texts[place] ?? null;
    if (text === null || TEXTS.has(field)) return text;
    if (text.includes(".")) return number(text);
    return Number.isSafeInteger(whole(text)) ? whole(text) : BigInt(text);
  }
}
