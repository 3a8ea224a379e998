"""Sources: topics and files of another shape, read by a mapping in TOML, as pixels.

A source's message is mapped onto the words of a call (`mapping`), understood by the collector's own stages
(`pixels`), and written to the pixel topic as a collector writes (`live`), or to a file or a topic of its own
(`batch`). `audiopixel sources draft | check | run` is the way in.

Door: `Source`, `load_source`, `Pixels`; the rest is imported by module.
"""

from flows.sources.pixels import Pixels as Pixels
from flows.sources.source import Source as Source
from flows.sources.source import load_source as load_source
