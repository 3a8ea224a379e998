"""A producer of pixels: each line of standard input becomes a message under the right key.

pip install confluent-kafka; python producer.py BROKERS < pixels.ndjson
"""

import json
import sys

from confluent_kafka import Producer


def key(pixel: dict) -> str:
    """All pixels of a play, and all conversions of an order, have one key, and so share a partition."""
    if pixel["event"] == "conversion":
        return pixel["conversion"].get("order_id") or pixel["event_id"]
    return pixel.get("play_id") or pixel.get("listener_id") or pixel["event_id"]


if __name__ == "__main__":
    # Java's clients and the collector use murmur2. Idempotence waits for all replicas in sync.
    options = {"bootstrap.servers": sys.argv[1], "partitioner": "murmur2_random", "enable.idempotence": True}
    producer, errors = Producer(options), []
    for line in sys.stdin.buffer:
        report = lambda error, _: errors.append(error) if error else None  # noqa: E731
        producer.produce("audio-pixels", line.rstrip(), key(json.loads(line)), on_delivery=report)
        if len(producer) > 50_000:
            producer.flush()
    producer.flush()
    sys.exit(f"{len(errors)} pixels were not delivered: {errors[0]}" if errors else 0)
