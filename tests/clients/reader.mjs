/** Reads rows by the Node client, as tests/support/client_support.py asks: a line of JSON each way. */

import { createInterface } from "node:readline";

import { Client } from "./index.js";

const [url, given] = process.argv.slice(2);
const { reviewed = {}, stale_s, ...options } = JSON.parse(given);
if (stale_s !== undefined) options.staleMs = stale_s * 1000;
const client = new Client(url, options);
for (const [name, impressions] of Object.entries(reviewed)) client.reviewed.set(name, impressions);
const answer = (what) => console.log(JSON.stringify(what));

function read(name, fields) {
  let row;
  try {
    row = client.get(name);
  } catch {
    return { error: true };
  }
  const text = (field) => {
    try {
      return String(row.get(field));
    } catch {
      return "not read";
    }
  };
  const { usable, reason, factor, blocked, version } = row;
  return { usable, reason, factor, blocked, version, fields: Object.fromEntries(fields.map((of) => [of, text(of)])) };
}

async function watch(names, fields, ms) {
  const [looks, last, until] = [[], new Map(), performance.now() + ms];
  let reads = 0;
  while (performance.now() < until) {
    for (const name of names) {
      const [row, before, at] = [client.get(name), last.get(name), Date.now()];
      const { reason, version } = row;
      reads += 1;
      if (before && before[3] === reason && String(before[5]) === String(version)) {
        before[2] = at;
        continue;
      }
      if (before) looks.push(before);
      last.set(name, [name, at, at, reason, row.factor, version, Object.fromEntries(fields.map((of) => [of, row.get(of)]))]);
    }
    await new Promise((done) => setTimeout(done, 1));
  }
  return { reads, looks: [...looks, ...last.values()] };
}

await client.open(2_000);
answer({});
for await (const line of createInterface({ input: process.stdin })) {
  const { read: name, watch: names, fields, ms } = JSON.parse(line);
  answer(names ? await watch(names, fields, ms) : read(name, fields));
}
await client.close();
