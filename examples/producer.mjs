// A producer of pixels: each line of standard input becomes a message under the right key.
// npm install kafkajs; node producer.mjs BROKERS < pixels.ndjson

import { createInterface } from "node:readline";
import { Kafka, Partitioners } from "kafkajs";

// All pixels of a play, and all conversions of an order, have one key, and so share a partition.
const key = (pixel) =>
  pixel.event === "conversion"
    ? pixel.conversion.order_id || pixel.event_id
    : pixel.play_id || pixel.listener_id || pixel.event_id;

// The default partitioner is murmur2, as of Java's clients and of audiopixel's collector.
const producer = new Kafka({ brokers: process.argv[2].split(",") }).producer({ createPartitioner: Partitioners.DefaultPartitioner });
await producer.connect();
let messages = [];
const send = () => producer.send({ topic: "audio-pixels", acks: -1, messages: messages.splice(0) }); // throws if one fails
for await (const line of createInterface({ input: process.stdin })) {
  if (messages.push({ key: key(JSON.parse(line)), value: line }) === 1000) await send();
}
if (messages.length) await send();
await producer.disconnect();
