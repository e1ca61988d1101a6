"""What keys, and patterns of keys, may be (ADR-8)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trionats import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KEY_LIMIT", "checked_filter", "checked_key"]

#: A control line has 4096 bytes by default, and the key stands in it beside the bucket's name and an inbox.
KEY_LIMIT = 3000

_key_form = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*").fullmatch
_filter_form = re.compile(r"([-/_=a-zA-Z0-9]+|\*)(\.([-/_=a-zA-Z0-9]+|\*))*(\.>)?|>").fullmatch


def checked_key(bucket: str, key: str) -> str:
    """Check a key.

    Args:
        bucket: Its bucket, for texts.
        key: The key.

    Returns:
        The key.

    Raises:
        trionats.errors.InvalidKeyError: It is none: it has an empty token, or other letters than `-/_=.a-zA-Z0-9`.
        TypeError: It is no text.
    """
    return _checked(bucket, key, "key", "letters, digits and -/_= in tokens separated by single dots", _key_form)


def checked_filter(bucket: str, pattern: str) -> str:
    """Check a pattern of keys, which may have the wildcards `*` and `>`.

    Raises:
        trionats.errors.InvalidKeyError: It is none.
        TypeError: It is no text.
    """
    return _checked(bucket, pattern, "filter", "a key, in which whole tokens may be * and the last one >", _filter_form)


def _checked(bucket: str, text: str, what: str, form: str, is_one: Callable[[str], object]) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} {text!r} of bucket {bucket!r}: it must be text, not {type(text).__name__}")
    if len(text) <= KEY_LIMIT and is_one(text) is not None:
        return text
    why = f"it must be {form}" if len(text) <= KEY_LIMIT else f"it is longer than {KEY_LIMIT} bytes"
    said = f"{what} {text[:80]!r} of bucket {bucket!r}: {why}"
    raise errors.explained(errors.InvalidKeyError, said, description=said)
