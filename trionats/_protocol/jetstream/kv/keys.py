"""What keys, and patterns of keys, may be (ADR-8)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trionats import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KEY_LIMIT", "RESERVED", "checked_filter", "checked_key", "checked_new_key", "several_filters"]

#: A control line has 4096 bytes by default, and the key stands in it beside the bucket's name and an inbox.
KEY_LIMIT = 3000
#: What keys that ADR-8 keeps for itself begin with.
RESERVED = "_kv"

_key_form = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*").fullmatch
_filter_form = re.compile(r"([-/_=a-zA-Z0-9]+|\*)(\.([-/_=a-zA-Z0-9]+|\*))*(\.>)?|>").fullmatch


def checked_key(bucket: str, key: str, given: str | None = None) -> str:
    """Check a key.

    Args:
        bucket: Its bucket, for texts.
        key: The key, as it is to stand in the bucket.
        given: What the program calls it, for texts, where codecs have made `key` of that.

    Returns:
        The key.

    Raises:
        trionats.errors.InvalidKeyError: It is none: it has an empty token, or other letters than `-/_=.a-zA-Z0-9`.
        TypeError: It is no text.
    """
    return _checked(bucket, key, "key", "letters, digits and -/_= in tokens separated by single dots", _key_form, given)


def checked_new_key(bucket: str, key: str, given: str | None = None) -> str:
    """Check a key under which something is to be stored, as `checked_key` does.

    Raises:
        trionats.errors.InvalidKeyError: It is none, or one of those that are reserved.
        TypeError: It is no text.
    """
    checked_key(bucket, key, given)
    if key.startswith(RESERVED):
        said = f"{_called('key', key, bucket, given)}: keys that begin with {RESERVED!r} are reserved (ADR-8)"
        raise errors.explained(errors.InvalidKeyError, said, description=said)
    return key


def checked_filter(bucket: str, pattern: str) -> str:
    """Check a pattern of keys, which may have the wildcards `*` and `>`.

    Raises:
        trionats.errors.InvalidKeyError: It is none.
        TypeError: It is no text.
    """
    return _checked(bucket, pattern, "filter", "a key, in which whole tokens may be * and the last one >", _filter_form)


def several_filters(bucket: str, filters: str | Sequence[str]) -> list[str]:
    """Make a list of one pattern or several, in whatever form a codec may know them.

    Raises:
        TypeError: They are neither.
        ValueError: There is none.
    """
    if isinstance(filters, str):
        return [filters]
    if not isinstance(filters, Sequence) or isinstance(filters, (bytes, bytearray, memoryview)):
        wrong = type(filters).__name__
        raise TypeError(f"keys of bucket {bucket!r}: filters must be a pattern, or several of them, not {wrong}")
    if not filters:
        raise ValueError(f"keys of bucket {bucket!r}: filters is empty, so that no key can match")
    return list(filters)


def _called(what: str, text: str, bucket: str, given: str | None) -> str:
    """Name a key as the program knows it, and as its codecs make it where that is something else."""
    if given is None or given == text:
        return f"{what} {text[:80]!r} of bucket {bucket!r}"
    return f"{what} {given[:80]!r} of bucket {bucket!r}, of which its codecs make {text[:80]!r}"


def _checked(
    bucket: str, text: str, what: str, form: str, is_one: Callable[[str], object], given: str | None = None
) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} {text!r} of bucket {bucket!r}: it must be text, not {type(text).__name__}")
    if len(text) <= KEY_LIMIT and is_one(text) is not None:
        return text
    why = f"it must be {form}" if len(text) <= KEY_LIMIT else f"it is longer than {KEY_LIMIT} bytes"
    said = f"{_called(what, text, bucket, given)}: {why}"
    raise errors.explained(errors.InvalidKeyError, said, description=said)
