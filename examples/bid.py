"""A bid optimiser by audiopixel's client: of each placement the factor for its rate, stop, or leave the bid.

pip install audiopixel-client; python bid.py REDIS_URL PLACEMENT…
"""

import sys

from audiopixel_client import Client, Row


def decision(row: Row) -> str:
    """What to do with the bid."""
    if row.blocked:  # before all else, and also by old numbers
        return f"stop ({row.blocked} impressions in blocked content)"
    if row.factor is None:
        return f"leave the bid as it is ({row.reason or row['delivery.state'] or 'no plan'})"
    return f"bid {row.factor:.2f} x ({row['1h.impressions']} impressions in the last hour)"


if __name__ == "__main__":
    url, *placements = sys.argv[1:]
    with Client(url, placements=placements) as client:  # once, when your program starts
        for placement in placements:  # as often as you like: it reads memory
            print(placement, decision(client[placement]))
