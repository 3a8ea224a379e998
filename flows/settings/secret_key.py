"""The type of settings that are keys of hashes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr

from flows.settings.wording import Takes


def fits(key: SecretStr) -> bool:
    """True if a key has 16 to 64 bytes."""
    return 16 <= len(key.get_secret_value().encode()) <= 64


def _fitting(key: SecretStr | None) -> SecretStr | None:
    if key is not None and not fits(key):
        raise ValueError("takes 16 to 64 bytes")
    return key


Key = Annotated[SecretStr | None, AfterValidator(_fitting), Takes("secret text of 16 to 64 bytes, or unset")]
