/** audiopixel's live counters for programs that bid by them: rows from memory that cannot be misread. */

import { setTimeout as sleep } from "node:timers/promises";

import { createClient } from "@redis/client";

import { addressOf, inWords, primaryOf, within } from "./address.js";
import { META, Mirror } from "./mirror.js";
import { STALE_MS, compare, now } from "./rows.js";

export { Row } from "./rows.js";

/** The greatest number of rows that one pipeline reads. */
const CHUNK = 1_000;
/** The time without a message after which the client reads `meta`. A subscription may be dead without an error. */
const QUIET_MS = 1_000;
const LONGEST_PAUSE_MS = 500;

/** No texts for a key that holds no hash; throws any other error. */
const noHash = (error) => {
  if (error.message.startsWith("WRONGTYPE")) return [];
  throw error;
};

/** The waiting messages, and the first error of a connection. */
class Inbox {
  #messages = [];
  #error = null;
  #wake = () => {};

  push(message) {
    this.#messages.push(message);
    this.#wake();
  }

  fail(error) {
    this.#error ??= error;
    this.#wake();
  }

  /** All waiting messages; none if no message comes within `ms`. Throws the error of a connection. */
  async take(ms) {
    if (!this.#messages.length && !this.#error) {
      let timer;
      await new Promise((done) => {
        this.#wake = done;
        timer = setTimeout(done, ms);
      });
      clearTimeout(timer);
    }
    if (this.#error) throw this.#error;
    return this.#messages.splice(0);
  }
}

/**
 * Rows of placements, from memory. The client reads a snapshot of all rows, then the rows that each message of
 * `updates` names. It reads another snapshot after a lost message, a reconnection, or a new execution of the flow.
 *
 *     const client = await new Client("redis://127.0.0.1:6379/0", { campaign: "autumn-sale" }).open();
 *     const row = client.get("breakfast-uk");
 *
 * `url`: address of Redis or Valkey, `redis://user:password@host:6379/0`, or of its Sentinels,
 * `redis+sentinel://host:26379,host2:26379/service/0`; a RangeError if malformed, or a Redis Cluster's.
 * `fields`: fields of a row, besides those that the rules need. `placements`: the placements to read; by default all.
 * `campaign`: the only campaign whose placements are read; by default any. `namespace`: the flow's
 * `AUDIOPIXEL_NAMESPACE`. `least`, `most`: bounds of `row.factor`. `staleMs`: the age of the flow's last write beyond
 * which no row is usable; at most 30,000. `timeoutMs`: the time that Redis may take to answer.
 */
export class Client {
  #address;
  #mirror;
  #wanted;
  #namespace;
  #timeoutMs;
  #inbox = new Inbox();
  #over = false;
  #done;
  #ready;
  /** By placement, impressions in blocked content that a person has reviewed; the program sets it. */
  reviewed = new Map();
  /** The last error; null after a snapshot. */
  error = null;

  constructor(url, options = {}) {
    const { fields = [], placements, campaign, namespace = "audiopixel:v1" } = options;
    const { least = 0.5, most = 2, staleMs = STALE_MS, timeoutMs = 1_000 } = options;
    this.#address = addressOf(url);
    this.#wanted = placements === undefined ? null : new Set(placements);
    this.#mirror = new Mirror({ fields, campaign, staleMs, least, most, reviewed: this.reviewed });
    [this.#namespace, this.#timeoutMs] = [namespace, timeoutMs];
  }

  /** Begin, and wait for the first snapshot, at most `ms`. Without a snapshot no row is usable yet. */
  async open(ms = 5_000) {
    const ready = new Promise((done) => (this.#ready = done));
    const late = setTimeout(this.#ready, ms);
    this.#done = this.#run();
    await ready;
    clearTimeout(late);
    return this;
  }

  async close() {
    this.#over = true;
    this.#inbox.fail(new Error("closed"));
    await this.#done;
  }

  /** The row of a placement, `gone` if Redis has none. Throws if the placement is not one of `placements`. */
  get(placement) {
    if (this.#wanted && !this.#wanted.has(placement)) throw new RangeError(`${placement} is not in placements`);
    return this.#mirror.row(placement);
  }

  /** The placements that have a row now. */
  names() {
    return this.#mirror.names();
  }

  async #run() {
    let pauseMs = 50;
    while (!this.#over) {
      const inbox = (this.#inbox = new Inbox());
      const socket = { reconnectStrategy: false, connectTimeout: this.#timeoutMs };
      const connections = [];
      try {
        const primary = await primaryOf(this.#address, socket);
        const commands = createClient(primary);
        const subscriber = commands.duplicate();
        connections.push(commands, subscriber);
        for (const connection of connections) connection.on("error", (error) => inbox.fail(error));
        await this.#within(Promise.all(connections.map((connection) => connection.connect())));
        const channel = `${this.#namespace}:updates`;
        await this.#within(subscriber.subscribe(channel, (message) => inbox.push(message)));
        await this.#snapshot(commands);
        pauseMs = 50;
        await this.#follow(commands, inbox, primary.socket);
      } catch (error) {
        this.error = inWords(error); // of any kind: rows become stale, and the next turn connects again
      }
      for (const connection of connections) if (connection.isOpen) connection.destroy();
      if (!this.#over) await sleep(pauseMs * (0.5 + Math.random() / 2));
      pauseMs = Math.min(LONGEST_PAUSE_MS, 2 * pauseMs);
    }
  }

  #within(answer) {
    return within(this.#timeoutMs, answer);
  }

  /** Read the rows that messages name, until the end, a promotion, or a message lost without an error. */
  async #follow(commands, inbox, socket) {
    let late = false;
    while (!this.#over) {
      const messages = await inbox.take(late ? QUIET_MS / 2 : QUIET_MS);
      if (messages.length) {
        late = false;
        await this.#take(commands, messages);
        continue;
      }
      const { host, port } = (await primaryOf(this.#address, socket)).socket;
      if (host !== socket.host || port !== socket.port) return;
      const { reading } = await this.#read(commands, []);
      if (compare(reading.flush, this.#mirror.flush) === 0) this.#mirror.show([], reading, reading.flush);
      else if (late) return;
      else late = true; // the message of this flush may be on the way
    }
  }

  async #take(commands, messages) {
    let flush = this.#mirror.flush;
    const named = new Set();
    for (const message of messages) {
      const follows = this.#mirror.follows(message, flush);
      if (follows === null) return this.#snapshot(commands);
      flush = follows.number;
      for (const name of follows.names) if (!this.#wanted || this.#wanted.has(name)) named.add(name);
    }
    const { reading, rows } = await this.#read(commands, [...named]);
    if (compare(reading.flush, flush) < 0)
      throw new Error(`meta is of flush ${reading.flush}, before the message's ${flush}`);
    this.#mirror.show(rows, reading, flush);
  }

  /** Read all rows. */
  async #snapshot(commands) {
    const { reading: first } = await this.#read(commands, []);
    const names = this.#wanted ? [...this.#wanted] : await this.#indexed(commands);
    const all = new Map();
    for (let begin = 0; begin < names.length; begin += CHUNK) {
      const { reading, rows } = await this.#read(commands, names.slice(begin, begin + CHUNK));
      if (compare(reading.version, first.version) < 0) throw new Error("Redis has lost its data");
      for (const [name, texts] of rows) all.set(name, texts);
    }
    this.#mirror.show(all, first, first.flush, true);
    this.error = null;
    this.#ready();
  }

  async #indexed(commands) {
    const names = new Set();
    let cursor = "0";
    do {
      const scan = ["ZSCAN", `${this.#namespace}:index:placement`, cursor, "COUNT", String(CHUNK)];
      const [next, entries] = await this.#within(commands.sendCommand(scan));
      for (let place = 0; place < entries.length; place += 2) names.add(entries[place]); // between them stand scores
      cursor = next;
    } while (cursor !== "0");
    return [...names];
  }

  /** Read Redis's clock, then `meta`, then rows, which are of the flush of `meta` or of a later one. */
  async #read(commands, names) {
    const asked = now();
    const key = (name) => `${this.#namespace}:placement:{${name}}`;
    const sent = [
      commands.sendCommand(["TIME"]),
      commands.sendCommand(["HMGET", `${this.#namespace}:meta`, ...META]),
      ...names.map((name) => commands.sendCommand(["HMGET", key(name), ...this.#mirror.fields]).catch(noHash)),
    ];
    const [[seconds, micros], meta, ...texts] = await this.#within(Promise.all(sent));
    const reading = this.#mirror.read(meta, Number(seconds) * 1_000 + Number(micros) / 1_000, asked);
    return { reading, rows: new Map(names.map((name, place) => [name, texts[place]])) };
  }
}
