"""An object's info: where it stands, what it may say, and what is left of one that says something else.

Strategy
    Anybody may write into a bucket's subjects, so reading is total: whatever stands there comes out as an info or as a
    `BadObjectMetaError`, and in both cases with what it takes to write over it. Writing is strict: what could not be
    read back as it was given is refused before anything is sent.

    A name stands in the subject as base64 of its UTF-8. nats.js writes base64 of Latin-1, so a name with letters beyond
    ASCII and within Latin-1 has two places; and what is one name's place in one of the two may be another name's in the
    other (design 58).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from nats.js.api import ObjectLink
from nats.js.api import ObjectMetaOptions as AnyOptions

from trionats import api, errors
from trionats._protocol import headers
from trionats._protocol.jetstream.acks import LARGEST, count_of

if TYPE_CHECKING:
    from nats.js.api import ObjectMeta as AnyObjectMeta

__all__ = [
    "CHUNK_SIZE",
    "NAME_LIMIT",
    "Limits",
    "Place",
    "bad_meta",
    "encoded_name",
    "expecting",
    "info_bytes",
    "marker",
    "new_info",
    "places",
    "read_info",
    "read_place",
    "rfc3339",
]

#: What other clients cut objects into, too.
CHUNK_SIZE = 128 * 1024
#: A control line has 4096 bytes by default, and the name stands in it as base64, beside the bucket's and an inbox.
NAME_LIMIT = 2700
NUID_LIMIT = 128

_nuid_form = re.compile(r"[!-)+,\-/-=?-~]+").fullmatch  # visible ASCII but . * >
_ABSENT: tuple[object, ...] = (None, False, 0, "", [], {})


# Where it stands.


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
    if not name.isascii() and (latin := _latin(name)) is not None:
        encoded.append(latin)
    return [base64.urlsafe_b64encode(one).decode() for one in encoded]


def _latin(name: str) -> bytes | None:
    try:
        return name.encode("latin-1")
    except UnicodeEncodeError:
        return None


@dataclass(frozen=True)
class Place:
    """What stands in one place where an object's info may stand.

    Attributes:
        subject: The place.
        revision: The sequence of what stands there; 0 for nothing.
        info: The info, of an object or of a deleted one; None where there is none, or none that can be read.
        problem: Why what stands there cannot be read.
        nuid: Under which its chunks are; empty where that is not known, or cannot be true.
        elsewhere: The name of another object, whose place this is in the other alphabet.
    """

    subject: str
    revision: int = 0
    info: api.ObjectInfo | None = None
    problem: errors.BadObjectMetaError | None = None
    nuid: str = ""
    elsewhere: str | None = None

    @property
    def taken(self) -> bool:
        """Whether an object stands here, readable or not; a marker of a deleted one is none."""
        if self.elsewhere is not None:
            return False
        return self.problem is not None or (self.info is not None and not self.info.deleted)


def read_place(bucket: str, name: str, subject: str, message: Any) -> Place:  # noqa: ANN401 - the server's word
    """Read what the server says stands in a place.

    Args:
        bucket: The bucket, for texts.
        name: The object that is looked for.
        subject: The place.
        message: The `message` of the response.

    Raises:
        trionats.errors.APIError: It is none.
    """
    try:
        data = base64.b64decode(message.get("data") or "")
        revision, stored_at = int(message["seq"]), str(message["time"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        text = f"object {name!r} in bucket {bucket!r}: what came back is no stored message ({error!r})"
        nothing = {"code": None, "err_code": None, "stream": None, "seq": None}
        raise errors.explained(errors.APIError, text, description="not a stored message", **nothing) from None
    try:
        info = read_info(bucket, data, revision=revision, stored_at=stored_at, subject=subject, name=name)
    except errors.BadObjectMetaError as problem:
        return Place(subject, revision, problem=problem, nuid=_sound_nuid(data), elsewhere=_other_name(name, subject))
    other = info.name != name and _is_place_of(info.name, subject)
    return Place(subject, revision, info, nuid=info.nuid, elsewhere=info.name if other else None)


def _other_name(name: str, subject: str) -> str | None:
    """Name another object that everybody but nats.js would look for in a place; None where there is none."""
    try:
        found = base64.urlsafe_b64decode(subject.rpartition(".")[2]).decode()
    except UnicodeDecodeError:
        return None
    return None if found == name else found


def _is_place_of(name: str, subject: str) -> bool:
    """Whether a subject is a name's place in either alphabet."""
    forms = [name.encode(errors="replace"), _latin(name)]
    token = subject.rpartition(".")[2]
    return any(base64.urlsafe_b64encode(form).decode() == token for form in forms if form)


# What it says.


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
    return None if not nuid or _is_sound(nuid) else "its nuid cannot be part of a subject"


def _is_sound(nuid: object) -> bool:
    # It becomes part of the subject of a purge: a nuid of ">" would empty the bucket.
    # And one that is too long for a control line would end the connection.
    return isinstance(nuid, str) and _nuid_form(nuid) is not None and len(nuid) <= NUID_LIMIT


def _sound_nuid(data: bytes) -> str:
    """Find out under which nuid the chunks are of an object whose info is none."""
    try:
        nuid = json.loads(data)["nuid"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
    return nuid if _is_sound(nuid) else ""


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


# What we say.


def bad_meta(name: str, bucket: str, why: str) -> errors.BadObjectMetaError:
    """Make the exception for an object whose meta says what cannot be."""
    text = f"object {name!r} in bucket {bucket!r}: {why}"
    return errors.explained(errors.BadObjectMetaError, text, description=text)


def new_info(name: str, bucket: str, nuid: str, meta: AnyObjectMeta | None) -> api.ObjectInfo:
    """Make the info of an object that is to be stored, from what the user says of it.

    Args:
        name: The object's name, which was checked.
        bucket: Its bucket.
        nuid: Under which its chunks will be.
        meta: What the user says.

    Returns:
        The info, whose `max_chunk_size` is the one that was asked for, or None.

    Raises:
        trionats.errors.BadObjectMetaError: Something of it is of a kind that could not be read back as it was given.
        TypeError: `meta` is no `ObjectMeta`.
    """
    if meta is None:
        meta = api.ObjectMeta()
    if not all(hasattr(meta, field) for field in ("name", "description", "headers", "options")):
        raise TypeError(f"object {name!r}: meta must be an ObjectMeta, not {type(meta).__name__}")
    try:
        if meta.name is not None:
            _text("the name in its meta", meta.name)
        return api.ObjectInfo(
            name=str.__str__(name),
            bucket=bucket,
            nuid=nuid,
            description=None if meta.description is None else _text("its description", meta.description),
            headers=_headers(meta.headers),
            metadata=_metadata(getattr(meta, "metadata", None)),
            options=_options(meta.options),
        )
    except _Unfit as unfit:
        raise bad_meta(name, bucket, str(unfit)) from None


class _Unfit(Exception):
    pass


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise _Unfit(f"{what} must be text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Unfit(f"{what} is no valid text") from None
    return str.__str__(value)


def _items(what: str, value: object) -> list[tuple[object, object]]:
    if not isinstance(value, Mapping):
        raise _Unfit(f"{what} must be a mapping, not {type(value).__name__}")
    return list(value.items())


def _headers(given: object) -> dict[str, list[str]] | None:
    """Write headers the way every client reads them: each name with a list."""
    if given is None:
        return None
    lists: dict[str, list[str]] = {}
    for key, value in _items("its headers", given):
        name = _text(f"the name {key!r} of a header", key)
        texts = headers.texts(value)
        if texts is None:
            raise _Unfit(f"header {name!r} must be text, or a list of texts, not {type(value).__name__}")
        lists.setdefault(name, []).extend(_text(f"header {name!r}", one) for one in texts)
    return lists or None


def _metadata(given: object) -> dict[str, str] | None:
    if given is None:
        return None
    metadata: dict[str, str] = {}
    for key, value in _items("its metadata", given):
        name = _text(f"the name {key!r} in its metadata", key)
        if name in metadata:
            raise _Unfit(f"its metadata has {name!r} more than once")
        metadata[name] = _text(f"{name!r} in its metadata", value)
    return metadata


def _options(given: object) -> api.ObjectMetaOptions:
    if given is None:
        return api.ObjectMetaOptions()
    if not isinstance(given, AnyOptions):
        raise _Unfit(f"its options must be ObjectMetaOptions, not {type(given).__name__}")
    if given.link is not None:
        kind = "" if isinstance(given.link, ObjectLink) else f", and {type(given.link).__name__} is no ObjectLink"
        raise _Unfit(f"a link is no data; its meta must not name one{kind}")
    size: object = given.max_chunk_size
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise _Unfit(f"chunks of {size!r} bytes are none")
    extra = given.extra if isinstance(given, api.ObjectMetaOptions) else {}
    return api.ObjectMetaOptions(max_chunk_size=None if size is None else int(size), extra=dict(extra))


def info_bytes(info: api.ObjectInfo) -> bytes:
    """Write an info as its meta message.

    Raises:
        trionats.errors.BadObjectMetaError: It holds what JSON has no words for.
    """
    try:
        return json.dumps(info.as_dict(), separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise bad_meta(info.name, info.bucket, f"its meta cannot be written: {error}") from error


def expecting(revision: int) -> dict[str, str]:
    """Make the headers of an info that is to take the place of a certain other one; 0 for none."""
    return {
        api.Header.ROLLUP.value: "sub",
        api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(revision),
    }


_HEADERS_AT_MOST = len(headers.encode(expecting(LARGEST)))


class Limits(NamedTuple):
    """How large a message may be.

    Attributes:
        server: As the server takes it, headers and payload together.
        bucket: As the bucket's stream takes it; 0 where it sets no limit, or that is not known.
    """

    server: int
    bucket: int = 0

    @property
    def least(self) -> int:
        """The one that counts."""
        return min(self.server, self.bucket) if self.bucket > 0 else self.server

    def __str__(self) -> str:
        return f"{'the bucket' if self.least < self.server else 'the server'} takes messages of {self.least} bytes"

    def chunk_size(self, info: api.ObjectInfo, asked: int | None, size: int) -> int:
        """Say how large the chunks of a new object are.

        Args:
            info: The object's, for texts.
            asked: What was asked for; None where nobody asked.
            size: How much data there is.

        Raises:
            trionats.errors.BadObjectMetaError: What was asked for cannot be.
        """
        if asked is not None and min(asked, size) > self.least:
            raise bad_meta(info.name, info.bucket, f"chunks of {asked} bytes were asked for, and {self}")
        return min(asked or CHUNK_SIZE, self.least)

    def check_info(self, info: api.ObjectInfo, size: int) -> None:
        """Refuse an object whose info would be too large, before its data is sent.

        Args:
            info: The info, complete but for what the data decides.
            size: How much data there is.

        Raises:
            trionats.errors.BadObjectMetaError: It is too large.
        """
        complete = replace(info, size=size, chunks=size, digest="SHA-256=" + "=" * 44)
        length = len(info_bytes(complete)) + _HEADERS_AT_MOST
        if length > self.least:
            raise bad_meta(info.name, info.bucket, f"its meta takes {length} bytes, and {self}")


def marker(place: Place, name: str, bucket: str, limits: Limits) -> api.ObjectInfo:
    """Make the info that says that an object was deleted.

    It says what the info before it said, as far as that can be written again: what nobody can read is left out.

    Args:
        place: Where the object stands.
        name: Its name.
        bucket: Its bucket.
        limits: How large it may be.
    """
    bare = api.ObjectInfo(name, bucket, place.nuid, size=0, chunks=0, digest="", deleted=True)
    if place.info is None:
        return bare
    full = replace(place.info, deleted=True, size=0, chunks=0, digest="")
    try:
        limits.check_info(full, 0)
    except errors.BadObjectMetaError:
        return bare
    return full
