"""An object's info: what may be read as one.

Anybody may write into a bucket's subjects, so reading is total: whatever stands there comes out as an info or as a
`BadObjectMetaError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

from trionats import api, errors
from trionats._protocol.jetstream.acks import count_of

__all__ = ["bad_meta", "is_sound", "read_info", "rfc3339", "sound_nuid"]

NUID_LIMIT = 128

_nuid_form = re.compile(r"[!-)+,\-/-=?-~]+").fullmatch  # visible ASCII but . * >
_ABSENT: tuple[object, ...] = (None, False, 0, "", [], {})


def bad_meta(name: str, bucket: str, why: str) -> errors.BadObjectMetaError:
    """Make the exception for an object whose meta says what cannot be."""
    text = f"object {name!r} in bucket {bucket!r}: {why}"
    return errors.explained(errors.BadObjectMetaError, text, description=text)


def read_info(
    bucket: str,
    data: bytes,
    *,
    revision: int,
    stored_at: int | str,
    subject: str | None = None,
    name: str | None = None,
) -> api.ObjectInfo:
    """Read an object's info from its meta message.

    Args:
        bucket: The bucket, for the text of an exception.
        data: The message's payload.
        revision: The message's sequence in the bucket's stream.
        stored_at: When the server stored the message: RFC 3339, or nanoseconds since 1970 as acks tell it.
        subject: The message's subject.
        name: The object that is looked for, for the text of an exception; None where all are.

    Returns:
        The info, with the message's time as its `mtime`.

    Raises:
        trionats.errors.BadObjectMetaError: Somebody wrote what is no object info.
    """
    try:
        fields = json.loads(data, parse_constant=_no_constant)
        complaint = _complaint(fields)
        if complaint is None:
            info = api.ObjectInfo.from_response(_sorted_out(fields))
            info.revision = revision
            info.subject = subject
            info.mtime = stored_at if isinstance(stored_at, str) else rfc3339(stored_at)
            return info
    except (ValueError, RecursionError):
        complaint = "it is no JSON object"
    except Exception as error:  # whatever else it is that somebody wrote: it may end nothing but its own entry
        complaint = f"it cannot be read: {error!r}"
    where = f"bucket {bucket!r}" if name is None else f"object {name!r} in bucket {bucket!r}"
    text = f"{where}: message {revision} should be the info of an object, but {complaint}"
    raise errors.explained(errors.BadObjectMetaError, text, description=text)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _complaint(fields: object) -> str | None:
    if not isinstance(fields, dict):
        return "it is no JSON object"
    for key in ("name", "bucket"):
        if not isinstance(fields.get(key), str):
            return f"its {key} is no text"
    for key in ("description", "digest"):
        if not isinstance(fields.get(key), str) and fields.get(key) is not None:
            return f"its {key} is no text"
    for key in ("size", "chunks"):
        if not _is_count(fields.get(key)):
            return f"its {key} is no count"
    for key in ("headers", "metadata", "options"):
        if not isinstance(fields.get(key), dict) and fields.get(key) not in _ABSENT:
            return f"its {key} is no JSON object"
    if not isinstance(fields.get("deleted", False), bool):
        return "whether it is deleted is neither true nor false"
    return _options_complaint(fields.get("options") or {}) or _nuid_complaint(fields)


def _is_count(value: object) -> bool:
    return value is None or count_of(value) is not None


def _options_complaint(options: Mapping[str, Any]) -> str | None:
    if not _is_count(options.get("max_chunk_size")):
        return "its chunk size is no count"
    link = options.get("link")
    if link is None:
        return None
    if not isinstance(link, dict):
        return "its link is no JSON object"
    name = link.get("name")
    if not isinstance(link.get("bucket"), str) or not (name is None or isinstance(name, str)):
        return "its link names no bucket or object"
    return None


def _nuid_complaint(fields: Mapping[str, Any]) -> str | None:
    nuid = fields.get("nuid")
    # nats.js writes none for a link, nor for a link that it deleted; neither has chunks.
    if nuid is None and (fields.get("deleted") or (fields.get("options") or {}).get("link")):
        return None
    if not isinstance(nuid, str):
        return "its nuid is no text"
    return None if not nuid or is_sound(nuid) else "its nuid cannot be part of a subject"


def is_sound(nuid: object) -> TypeGuard[str]:
    """Say whether a nuid may be part of a subject."""
    # It becomes part of the subject of a purge: a nuid of ">" would empty the bucket.
    # And one that is too long for a control line would end the connection.
    return isinstance(nuid, str) and _nuid_form(nuid) is not None and len(nuid) <= NUID_LIMIT


def sound_nuid(data: bytes) -> str:
    """Find out under which nuid the chunks are of an object whose info is none."""
    try:
        nuid = json.loads(data)["nuid"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
    return nuid if is_sound(nuid) else ""


def _sorted_out(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write what is left out or null the way our class has it."""
    absent = {key: None for key in ("headers", "metadata", "options") if not fields.get(key)}
    return {**fields, **absent, "nuid": fields.get("nuid") or "", "deleted": bool(fields.get("deleted"))}


def rfc3339(nanoseconds: int) -> str:
    """Write the time of a message, given in nanoseconds since 1970, as the server does."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    # As Go writes it, so that the time of a message is the same text whichever way it was read.
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"
