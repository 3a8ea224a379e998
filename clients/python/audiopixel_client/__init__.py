"""audiopixel's live counters for programs that bid by them: rows from memory that cannot be misread.

`Client` holds the rows of placements as a flow last wrote them, and refuses those that must not be acted on.
`audiopixel_client.testing` fills a Redis with a row for each reason to refuse one.
"""

from audiopixel_client.client import Client
from audiopixel_client.rows import Row

__all__ = ["Client", "Row"]
