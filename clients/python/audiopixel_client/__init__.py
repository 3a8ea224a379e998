"""audiopixel's live counters for programs that bid by them: rows from memory that cannot be misread.

`Client` holds the rows of placements as a flow last wrote them. Each row has the reason not to act on it, if
there is one. `audiopixel_client.testing` fills a Redis with a row for each such reason.
"""

from audiopixel_client.client import Client
from audiopixel_client.rows import Row

__all__ = ["Client", "Row"]
