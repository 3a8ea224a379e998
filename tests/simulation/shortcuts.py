"""The flow's cheaper ways during a simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from flows.methodology import Methodology, methodology
from flows.model.ticks import Methods
from flows.settings import Settings


class Unmeasured:
    """Instruments without a reader."""

    def __getattr__(self, name: str) -> Self:
        self.__dict__[name] = self
        return self

    def __call__(self, *_: object) -> Self:
        return self


UNMEASURED: Final = Unmeasured()
_methodologies: dict[tuple[object, ...], Methodology] = {}


def described(settings: Settings, methods: Methods = ()) -> Methodology:
    """A flow's description, made once for settings that are alike."""
    key = repr([one for one in vars(settings).values() if not isinstance(one, Path)]), methods
    if key not in _methodologies:
        _methodologies[key] = methodology(settings, methods)
    return _methodologies[key]
