"""Sources: topics and files of another shape, read by a mapping in TOML, as pixels.

A mapping (`source`, `paths`) translates a message's fields into the words of a call. The collector's own
stages decide what the call means (`pixels`). A live source writes to the pixel topic as a collector does
(`live`), a batch source to a file or a topic of its own (`batch`). The command is
`audiopixel sources draft | check | run`.

Door: `Source`, `load_source`, `Pixels`; the rest is imported by module.
"""

from flows.sources.pixels import Pixels as Pixels
from flows.sources.source import Source as Source
from flows.sources.source import load_source as load_source
