/**
 * What one client has seen: the newest version of each row, and of `meta`, never an older one. It does no input
 * and output. The client reads Redis, `meta` before the rows, and hands over what it read.
 */

import { OWN, Row, STALE_MS, WATERMARK_MS, compare, gone, recordOf, whole } from "./rows.js";

export const META = [
  "generation", "fence", "rev", "flush", "judged", "unjudged_reason", "flushed_ms", "watermark_ms",
];
const MOST_GONE = 100_000;

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
    this.fields = [...new Set([...OWN, ...fields, ...(campaign === undefined ? [] : ["campaign_id"])])];
    this.#places = new Map(this.fields.map((name, place) => [name, place]));
    this.#options = { campaign, staleMs: Math.min(staleMs, STALE_MS), least, most, reviewed };
    this.#horizon = { unjudged: null, asked: [0, 0], leftMs: -1, reviewed };
  }

  /** The row of a placement; one that is not there is `gone`. */
  row(name) {
    return new Row(name, this.#records.get(name) ?? gone([]), this.#horizon, this.#places);
  }

  /** The placements that have a row. */
  names() {
    return [...this.#records.keys()];
  }

  /**
   * What a reading of `meta` says; `show` takes it with the rows that were read behind it.
   * `redisMs`: Redis's clock; `asked`: `now()` before that was asked for. Throws where `meta` is not there, or is
   * older than the one before.
   */
  read([generation, fence, rev, flush, judged, why, flushedMs, watermarkMs], redisMs, asked) {
    if ([generation, fence, rev, flush].includes(null))
      throw new Error("no flow has written here yet, or Redis has lost its data");
    const version = [generation, fence, rev].map(whole);
    if (compare(version, this.#meta) < 0)
      throw new Error(`meta is of version ${version}, and was of ${this.#meta}`);
    const leftMs = Math.min(
      this.#options.staleMs - Math.max(0, redisMs - whole(flushedMs ?? "0")),
      WATERMARK_MS - Math.max(0, redisMs - whole(watermarkMs ?? "0")),
    );
    const unjudged = judged === "1" ? null : why || "unjudged";
    const horizon = { unjudged, asked, leftMs, reviewed: this.#options.reviewed, generation: version[0] };
    return { version, flush: [version[0], version[1], whole(flush)], horizon };
  }

  /** Show rows, by name. `flush`: the one up to which all rows have been read; `all`: there are no other rows. */
  show(rows, reading, flush, all = false) {
    const records = all ? new Map() : this.#records;
    for (const [name, texts] of rows) {
      const record = this.#newest(name, texts);
      if (record === null) records.delete(name);
      else records.set(name, record);
    }
    if (all)
      for (const [name, record] of this.#records) if (!records.has(name)) this.#forget(name, record);
    if (compare(reading.version, this.#meta) > 0)
      // The same one again is no sign of life.
      [this.#meta, this.#horizon] = [reading.version, reading.horizon];
    [this.#records, this.flush] = [records, flush];
  }

  #newest(name, texts) {
    const shown = this.#records.get(name);
    const seen = shown?.version ?? this.#ended.get(name) ?? [-1, -1, -1];
    const { campaign, least, most } = this.#options;
    if (texts[0] === null || (campaign !== undefined && texts[this.#places.get("campaign_id")] !== campaign)) {
      if (shown) this.#forget(name, shown);
      return null;
    }
    const record = recordOf(texts, least, most);
    if (compare(record.version, seen) < 0) return shown ? { ...shown, refused: "stale" } : null;
    this.#ended.delete(name);
    return record;
  }

  #forget(name, record) {
    this.#ended.set(name, record.version);
    if (this.#ended.size > MOST_GONE) this.#ended.delete(this.#ended.keys().next().value);
  }

  /**
   * The number of a message of `updates`, and the placements whose rows are to be read; null: a message was lost
   * behind `flush`, so all rows are to be read.
   */
  follows(message, flush) {
    try {
      const { generation, fence, flush: count, previous, placements } = JSON.parse(message);
      const number = [generation, fence, count];
      if (!number.every(Number.isSafeInteger)) return null;
      if (compare(number, flush) < 0) return { number: flush, names: [] }; // of before all rows were read
      const next = compare(number, flush) === 0 || (previous !== null && compare(previous, flush) === 0);
      return next ? { number, names: placements.map(String) } : null;
    } catch {
      return null;
    }
  }
}
