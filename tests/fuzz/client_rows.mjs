/** Judges rows by the Node client's mirror: a line of JSON with `meta` and rows' texts in, a line of verdicts out. */

import { createInterface } from "node:readline";

const { META, Mirror } = await import(`${process.argv[2]}/mirror.js`);
const { now } = await import(`${process.argv[2]}/rows.js`);

for await (const line of createInterface({ input: process.stdin })) {
  const verdicts = JSON.parse(line).map(([meta, row, nowMs]) => {
    const mirror = new Mirror({ fields: [], staleMs: 30_000, least: 0.5, most: 2, reviewed: new Map() });
    const texts = row && mirror.fields.map((name) => row[name] ?? null);
    try {
      const reading = mirror.read(META.map((name) => meta[name] ?? null), nowMs, now());
      mirror.show([["a", texts ?? []]], reading, reading.flush, true);
    } catch {
      return ["no meta", null, 0];
    }
    const { reason, factor, blocked } = mirror.row("a");
    return [reason, factor, blocked];
  });
  console.log(JSON.stringify(verdicts));
}
