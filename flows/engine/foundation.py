"""The foundation of a recovery store: settings that its state cannot follow, and the beginning of its log.

A file next to the saves holds the foundation, and is written before anything is read. Every execution
compares its settings with it. A changed setting is either safe at a restart, or refused with what to do. A
partition without a saved position begins at the position in the file, so a crash before the first save loses
nothing. A partition that is added later begins at its own beginning, wherever the first start began.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from flows.errors import StateError
from flows.model.pixel import MAX_OWN_REASONS
from flows.model.ticks import DAY_MS
from flows.settings import NO_AGENT, PREFIX, Settings, ms
from flows.state.durable import private_directory, privately
from flows.state.keys import fingerprint
from flows.state.saves import SaveStore
from flows.state.sealed import Damaged, Missing, put_sealed, read_sealed

FILE: Final = "foundation"
KEY: Final = "listener_key"
_BACK: Final = "or count the log anew with --recompute and an empty recovery directory"


class Foundation(NamedTuple):
    """The file.

    Attributes:
        fixed: settings that never change, as text; a fingerprint stands for the listeners' key.
        longest_ms: the length of each memory. It may shrink but never grow: dropped state cannot be restored.
        begun: where each partition was first read.
        reasons: all reasons of invalid traffic that the settings have named so far. State stores their places
            in this list.
    """

    fixed: dict[str, str]
    longest_ms: dict[str, int]
    begun: dict[str, int]
    reasons: tuple[str, ...] = ()


_FORM: Final = msgspec.json.Decoder(Foundation)


def foundation_of(settings: Settings, secret: bytes) -> Foundation:
    """The foundation of a new store."""
    touches = settings.attribution != "off"
    return Foundation(
        {
            KEY: fingerprint(secret),
            "shards": str(settings.shards),
            "timezone": settings.timezone,
            "app_rows": str(settings.app_rows),
        },
        {
            "conversion_horizon": ms(settings.conversion_horizon),
            "click_window": ms(settings.click_window) if touches else 0,
            "listen_window": ms(settings.listen_window) if touches else 0,
        },
        {},
        (*settings.invalid_agents,),
    )


def settings_of_store(settings: Settings) -> Settings:
    """The settings, completed by the store in `recovery_dir`: the number of shards, if none is set, and the
    places of the reasons of invalid traffic. A reason that the settings no longer name keeps its place, and
    no agent matches it.

    Raises:
        StateError: the file cannot be read.
    """
    stored = None if settings.recovery_dir is None else _read(settings.recovery_dir)
    if stored is None:
        return settings
    settings = _sharded(settings, stored)
    if stored.reasons == (*settings.invalid_agents,):
        return settings
    agents = {reason: settings.invalid_agents.get(reason, NO_AGENT) for reason in stored.reasons}
    return settings.model_copy(update={"invalid_agents": agents})


def first_positions(directory: Path | None) -> Mapping[str, int] | None:
    """The position at which each partition was first read; None before the very first start.

    Raises:
        StateError: the file cannot be read.
    """
    stored = _read(directory) if directory is not None else None
    return None if stored is None else stored.begun


def lay_foundation(
    settings: Settings,
    secret: bytes,
    begins: Callable[[Mapping[str, int] | None], Mapping[str, int]] = lambda known: {},
) -> None:
    """Compare the settings with the foundation of the store in `settings.recovery_dir`, and make that
    durable: the new parts, or all of it at the very first start.

    Args:
        begins: returns where the partitions begin that are not among the known ones.

    Raises:
        StateError: a setting was changed that the state cannot follow, or the directory cannot be used.
    """
    directory = settings.recovery_dir
    if directory is None:
        return
    try:
        private_directory(directory)
        with privately():
            lock = open(directory / "init", "w")  # noqa: SIM115 (closed below)
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if any(directory.glob("*.sqlite3")):
                raise StateError(
                    f"the recovery directory {directory} has an earlier form, SQLite files, which this "
                    "version does not read: run the version that wrote it, " + _BACK
                )
            stored = _read(directory)
            old = not fresh(directory)
            now = foundation_of(_sharded(settings, stored) if old and stored else settings, secret)
            if old:
                if stored is None:
                    raise StateError(
                        f"the recovery directory {directory} has saves, but the file {FILE} that says "
                        "what they are made of is missing: restore all of it from one backup, " + _BACK
                    )
                _hold(stored, now)
            begun_at = None if stored is None else stored.begun
            reasons = tuple(dict.fromkeys((*(stored.reasons if stored else ()), *now.reasons)))
            if len(reasons) > MAX_OWN_REASONS:
                raise StateError(
                    f"the recovery store has room for {MAX_OWN_REASONS} reasons of invalid traffic over its "
                    f"life, and with {PREFIX}INVALID_AGENTS there are {', '.join(reasons)}: name one of the "
                    f"first {MAX_OWN_REASONS} in place of a new one, {_BACK}"
                )
            now = now._replace(begun={**(begun_at or {}), **begins(begun_at)}, reasons=reasons)
            if now != stored:
                put_sealed(directory / FILE, now)
    except OSError as error:
        raise StateError(f"the recovery directory {directory} cannot be used: {error.strerror}") from None


def merged(directories: Sequence[Path]) -> Foundation:
    """The foundation of several members' stores as one: each partition began where it was first read.

    Raises:
        StateError: one has none, or they are of different settings.
    """
    foundations = [_read(directory) for directory in directories]
    first = max(foundations, key=lambda one: len(one.reasons) if one else 0)
    begun: dict[str, int] = {}
    for directory, foundation in zip(directories, foundations, strict=True):
        if (
            foundation is None
            or first is None
            or foundation.fixed != first.fixed
            or not _alike(foundation, first)
        ):
            raise StateError(
                f"the file {FILE} in {directory} is missing, or of other settings than that in "
                f"{directories[0]}: name the directories of one cluster"
            )
        for partition, position in foundation.begun.items():
            begun[partition] = min(position, begun.get(partition, position))
    assert first is not None
    longest = {name: min(one.longest_ms[name] for one in foundations if one) for name in first.longest_ms}
    return Foundation(first.fixed, longest, begun, max((one.reasons for one in foundations if one), key=len))


def _alike(left: Foundation, right: Foundation) -> bool:
    """True if reasons have the same places in both."""
    return all(mine == theirs for mine, theirs in zip(left.reasons, right.reasons, strict=False))


def _sharded(settings: Settings, stored: Foundation) -> Settings:
    """The settings with the store's number of shards, if they set none."""
    if "shards" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"shards": int(stored.fixed["shards"])})


def _hold(stored: Foundation, now: Foundation) -> None:
    for name, value in now.fixed.items():
        # The store of an earlier version, which had no choice, has no `app_rows`.
        if (was := stored.fixed.get(name, "False")) != value:
            # Not even the fingerprints of the key are shown.
            change = f"{name}={was}, now {name}={value}" if name != KEY else f"another {name}"
            raise StateError(
                f"the recovery store was made with {change}: set {PREFIX}{name.upper()} back, {_BACK}"
            )
    for name, was_ms in stored.longest_ms.items():
        if now.longest_ms[name] > was_ms:
            setting = name if was_ms else "attribution"
            reason = f"was {was_ms / DAY_MS:g} days" if was_ms else "was off"
            raise StateError(
                f"{setting} {reason} in the recovery store, and what was forgotten does not come back: "
                f"set {PREFIX}{setting.upper()} back, {_BACK}"
            )


def _read(directory: Path) -> Foundation | None:
    try:
        return read_sealed(directory / FILE, _FORM)
    except Missing:
        return None
    except Damaged as error:
        raise StateError(f"{error}: restore all of the directory from one backup, {_BACK}") from None


def fresh(recovery_dir: Path | None) -> bool:
    """True if the directory has no committed save, or is None, so that an execution begins its log."""
    return recovery_dir is None or not SaveStore(recovery_dir).cuts()
