"""The names of objects, and the places where their infos may stand.

A name stands in the subject as base64 of its UTF-8. nats.js writes base64 of Latin-1, so a name with letters beyond
ASCII and within Latin-1 has two places; and what is one name's place in one of the two may be another name's in the
other (design 58).
"""

from __future__ import annotations

import base64

from trionats import errors

__all__ = ["NAME_LIMIT", "encoded_name", "latin", "places"]

#: A control line has 4096 bytes by default, and the name stands in it as base64, beside the bucket's and an inbox.
NAME_LIMIT = 2700


def encoded_name(name: str, bucket: str) -> bytes:
    """Check an object's name, and write it as it goes into a subject, before base64.

    Args:
        name: The name.
        bucket: Its bucket, for texts.

    Raises:
        trionats.errors.InvalidObjectNameError: It is empty, too long, or no valid text.
        TypeError: It is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"object name {name!r} for bucket {bucket!r}: it must be text, not {type(name).__name__}")
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        encoded = b""
    if not 0 < len(encoded) <= NAME_LIMIT:
        why = f"is longer than {NAME_LIMIT} bytes" if encoded else "is empty" if not name else "is no valid text"
        text = f"object name {name[:40]!r} for bucket {bucket!r} {why}"
        raise errors.explained(errors.InvalidObjectNameError, text, description=text)
    return encoded


def places(name: str, bucket: str) -> list[str]:
    """Say which last tokens the subject of an object's info may have: ours, and where there is one, nats.js's.

    Args:
        name: The object's name.
        bucket: Its bucket, for texts.

    Raises:
        trionats.errors.InvalidObjectNameError: As for `encoded_name`.
    """
    encoded = [encoded_name(name, bucket)]
    if not name.isascii() and (other := latin(name)) is not None:
        encoded.append(other)
    return [base64.urlsafe_b64encode(one).decode() for one in encoded]


def latin(name: str) -> bytes | None:
    """Write a name the way nats.js does; None where it cannot."""
    try:
        return name.encode("latin-1")
    except UnicodeEncodeError:
        return None
