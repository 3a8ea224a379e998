/**
 * The mirror of Redis in one client: the newest version of each row and of `meta`, never an older one. The mirror does
 * no input or output. The client reads `meta` before the rows, and passes both to the mirror.
 */

import { RULE_FIELDS, Row, SCHEMA, STALE_MS, WATERMARK_MS, absentRecord, compare, integer, recordOf } from "./rows.js";

export const META = [
  "generation", "fence", "rev", "flush", "judged", "unjudged_reason", "flushed_ms", "watermark_ms", "schema",
];
/** The greatest number of ended rows whose versions are remembered. */
const MAX_ENDED = 100_000;

export class Mirror {
  #meta = [-1, -1, -1];
  #records = new Map();
  #ended = new Map();
  #places;
  #options;
  #horizon;
  /** Generation, fence and number of the flush up to which all rows have been read. */
  flush = [-1, -1, -1];

  constructor({ fields, campaign, staleMs, least, most, reviewed }) {
    this.fields = [...new Set([...RULE_FIELDS, ...fields, ...(campaign === undefined ? [] : ["campaign_id"])])];
    this.#places = new Map(this.fields.map((name, place) => [name, place]));
    this.#options = { campaign, staleMs: Math.min(staleMs, STALE_MS), least, most, reviewed };
    this.#horizon = { unjudged: null, asked: [0, 0], leftMs: -1, reviewed };
  }

  /** The row of a placement, `gone` if there is none. */
  row(name) {
    return new Row(name, this.#records.get(name) ?? absentRecord([]), this.#horizon, this.#places);
  }

  /** The placements that have a row. */
  names() {
    return [...this.#records.keys()];
  }

  /**
   * Interpret `meta`; pass the result to `show` with the rows that were read after it. `redisMs`: Redis's clock, epoch
   * ms, read just before `meta`; `asked`: `now()` before the request for that clock. Throws if `meta` is absent, or older
   * than at an earlier reading.
   */
  read([generation, fence, rev, flush, judged, reason, flushedMs, watermarkMs, schema], redisMs, asked) {
    if ([generation, fence, rev, flush].includes(null))
      throw new Error("no flow has written to this namespace yet, or Redis has lost its data");
    const version = [generation, fence, rev].map(integer);
    if (compare(version, this.#meta) < 0)
      throw new Error(`meta is of version ${version}, and was of ${this.#meta}`);
    const leftMs = Math.min(
      this.#options.staleMs - Math.max(0, redisMs - integer(flushedMs || "0")),
      WATERMARK_MS - Math.max(0, redisMs - integer(watermarkMs || "0")),
    );
    let unjudged = judged === "1" ? null : reason || "unjudged";
    if (schema !== SCHEMA) unjudged = "unknown_schema";
    const horizon = { unjudged, asked, leftMs, reviewed: this.#options.reviewed, generation: version[0] };
    return { version, flush: [version[0], version[1], integer(flush)], horizon };
  }

  /**
   * Show rows, by name, and with them the horizon of a reading. `flush`: the flush up to which all rows have been read;
   * `all`: whether there are no other rows.
   */
  show(rows, reading, flush, all = false) {
    const records = all ? new Map() : this.#records;
    for (const [name, texts] of rows) {
      const record = this.#newest(name, texts);
      if (record === null) records.delete(name);
      else records.set(name, record);
    }
    if (all)
      for (const [name, record] of this.#records) if (!records.has(name)) this.#end(name, record);
    if (compare(reading.version, this.#meta) > 0)
      // The same version again does not show that the flow still writes.
      [this.#meta, this.#horizon] = [reading.version, reading.horizon];
    [this.#records, this.flush] = [records, flush];
  }

  /** The record to show; null if the row is absent, or another campaign's. A key that holds no hash has no texts. */
  #newest(name, texts) {
    const shown = this.#records.get(name);
    const before = shown ?? absentRecord([]);
    if (!texts.length) return { ...before, refused: "incomplete" };
    const { campaign, least, most } = this.#options;
    const another = campaign !== undefined && texts[this.#places.get("campaign_id")] !== campaign;
    if (another || texts.every((text) => text === null)) {
      if (shown) this.#end(name, shown);
      return null;
    }
    const record = recordOf(texts, before, least, most);
    const lastVersion = shown?.version ?? this.#ended.get(name) ?? [];
    if (compare(record.version, lastVersion) < 0) return shown ? { ...shown, refused: "stale" } : null;
    this.#ended.delete(name);
    return record;
  }

  /** Remember the version of a row that has ended. */
  #end(name, record) {
    this.#ended.set(name, record.version);
    if (this.#ended.size > MAX_ENDED) this.#ended.delete(this.#ended.keys().next().value);
  }

  /**
   * The number of a message of `updates`, and the placements whose rows are to be read. Null if a message was lost after
   * `flush`: then all rows are to be read.
   */
  follows(message, flush) {
    try {
      const { generation, fence, flush: count, previous, placements } = JSON.parse(message);
      const number = [generation, fence, count];
      if (!number.every(Number.isSafeInteger)) return null;
      if (compare(number, flush) < 0) return { number: flush, names: [] }; // sent before all rows were read
      const next = compare(number, flush) === 0 || (previous !== null && compare(previous, flush) === 0);
      return next ? { number, names: placements.map(String) } : null;
    } catch {
      return null;
    }
  }
}
