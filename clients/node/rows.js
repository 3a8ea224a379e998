/** A placement's row as a bidder reads it, and the rules by which it is refused (docs/bidders.md). */

export const STALE_MS = 30_000;
export const WATERMARK_MS = 300_000;
const STEERABLE = new Set(["on_track", "under", "at_risk", "over"]);
const UNKNOWN = new Set(["unknown_before", "ended_unknown"]);

/** The schema of rows, in `meta.schema`, for which these rules are made. */
export const SCHEMA = "1";

const INTEGER = /^\d{1,18}$/;
const DECIMAL = /^\d{1,18}(\.\d{1,18})?$/;
const FLAG = /^[01]$/;
const TEXT = /^\w{1,64}$/;
const FORMS = {
  "generation": INTEGER, "fence": INTEGER, "rev": INTEGER,
  "5m.impressions": INTEGER, "1h.impressions": INTEGER, "flight.blocked_impressions": INTEGER,
  "delivery.state": TEXT, "delivery.judged": FLAG, "delivery.booked": INTEGER,
  "delivery.delivered": INTEGER, "delivery.projected": DECIMAL, "delivery.unjudged_reason": TEXT,
};
/** The fields that the rules read, each of its form, in the order in which a row has them; the caller's follow. */
export const RULE_FIELDS = Object.keys(FORMS);
const VERSION = RULE_FIELDS.slice(0, 3);
/** The fields that every row has. */
const EVERY_ROW = RULE_FIELDS.slice(0, 6);
/** The fields that every row with a plan has, and no other. */
const PLANNED = RULE_FIELDS.slice(6, 9);

const TEXTS = new Set([
  "campaign_id", "platform", "station", "podcast", "program", "creative_id", "app",
  "delivery.state", "delivery.alerted_state", "delivery.unjudged_reason", "delivery.unjudged_by",
  "delivery.currency", "delivery.delivered_before_source", "delivery.unknown_reason",
  "conversion_currency", "impression_basis", "reach_unit",
]);

/** A moment in ms, by a clock that nobody sets and by the wall clock. In a suspended machine only the second goes on. */
export const now = () => [performance.now(), Date.now()];

/** Compare two versions: below 0, 0 or above 0. A version of no numbers is below all others. */
export const compare = (left, right) =>
  left.length - right.length || left[0] - right[0] || left[1] - right[1] || left[2] - right[2] || 0;

export const integer = (text) => {
  if (!INTEGER.test(text ?? "")) throw new RangeError(`not an integer: ${text}`);
  return Number(text);
};

/**
 * The record of a row: the rules applied to its texts, which begin with those of `RULE_FIELDS`. `before`: the record
 * shown before. A damaged row keeps its version and its blocked impressions.
 */
export function recordOf(texts, before, least, most) {
  const row = new Map();
  let whole = true;
  RULE_FIELDS.forEach((name, place) => {
    const text = texts[place];
    if (text !== null && FORMS[name].test(text)) row.set(name, text);
    else if (text !== null || EVERY_ROW.includes(name)) whole = false;
  });
  const version = VERSION.every((name) => row.has(name)) ? VERSION.map((name) => Number(row.get(name))) : before.version;
  const blocked = Number(row.get("flight.blocked_impressions") ?? before.blocked);
  const unjudged = row.get("delivery.judged") === "0" ? (row.get("delivery.unjudged_reason") ?? "unjudged") : null;
  const refused = whole ? refusal(row) : "incomplete";
  return { version, texts, unjudged, refused, blocked, factor: refused ? null : factor(row, least, most) };
}

/** The reason not to act on a row whose fields have the right form, and which has those of every row. */
function refusal(row) {
  const planned = PLANNED.filter((name) => row.has(name)).length;
  if (planned < PLANNED.length) return planned ? "incomplete" : "no_plan";
  const state = row.get("delivery.state");
  if (UNKNOWN.has(state)) return "unknown_before";
  return STEERABLE.has(state) && !row.has("delivery.delivered") ? "incomplete" : null;
}

/**
 * The factor by which to multiply the present rate, by `delivery.projected`. That field leaves out the flight's pauses,
 * and `1h.impressions` does not. A row without it has no known rate.
 */
function factor(row, least, most) {
  const stopped = Number(row.get("5m.impressions")) === 0 && Number(row.get("1h.impressions")) !== 0;
  if (!STEERABLE.has(row.get("delivery.state")) || stopped || !row.has("delivery.projected")) return null;
  const [booked, delivered, projected] =
    ["booked", "delivered", "projected"].map((name) => Number(row.get(`delivery.${name}`)));
  if (projected <= delivered) return null;
  return Math.min(Math.max((booked - delivered) / (projected - delivered), least), most);
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
    if (!/^-?\d+(\.\d+)?$/.test(text)) return null;
    return text.includes(".") || Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);
  }
}
