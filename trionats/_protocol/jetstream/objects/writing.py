"""What is written of an object: strict, since what could not be read back as it was given is refused before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from nats.js.api import ObjectLink
from nats.js.api import ObjectMetaOptions as AnyOptions

from trionats import api, errors
from trionats._protocol import headers
from trionats._protocol.jetstream.acks import LARGEST
from trionats._protocol.jetstream.objects.infos import bad_meta
from trionats._protocol.jetstream.objects.places import SHARES
from trionats._protocol.jetstream.publishing.publish import EXPECTED_LAST, ROLLUP

if TYPE_CHECKING:
    from nats.js.api import ObjectMeta as AnyObjectMeta

    from trionats._protocol.jetstream.objects.places import Place

__all__ = ["CHUNK_SIZE", "Limits", "check_is_meta", "expecting", "info_bytes", "marker", "new_info"]

#: What other clients cut objects into, too.
CHUNK_SIZE = 128 * 1024


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
    check_is_meta(name, meta)
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


def check_is_meta(name: str, meta: object) -> None:
    """Refuse what is no `ObjectMeta`, ours or nats-py's.

    Args:
        name: The object, for texts.
        meta: What it is to be.

    Raises:
        TypeError: It is none.
    """
    if not all(hasattr(meta, field) for field in ("name", "description", "headers", "options")):
        raise TypeError(f"object {name!r}: meta must be an ObjectMeta, not {type(meta).__name__}")


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
    extra: object = given.extra if isinstance(given, api.ObjectMetaOptions) else {}
    return api.ObjectMetaOptions(max_chunk_size=None if size is None else int(size), extra=_extra(extra))


def _extra(given: object) -> dict[str, Any]:
    """Check what is said beside the options that we know: it must not say these once more."""
    extra: dict[str, Any] = {}
    for key, value in _items("options.extra", given):
        name = _text(f"the name {key!r} in options.extra", key)
        if name in ("link", "max_chunk_size"):
            raise _Unfit(f"options.extra must not name {name}, which is an option of its own")
        extra[name] = value
    return extra


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
    return {ROLLUP: "sub", EXPECTED_LAST: str(revision)}


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

    def chunk_size(self, info: api.ObjectInfo, asked: int | None, size: int | None) -> int:
        """Say how large the chunks of a new object are.

        Args:
            info: The object's, for texts.
            asked: What was asked for; None where nobody asked.
            size: How much data there is; None where that is not known.

        Raises:
            trionats.errors.BadObjectMetaError: What was asked for cannot be.
        """
        if asked is not None and (asked if size is None else min(asked, size)) > self.least:
            raise bad_meta(info.name, info.bucket, f"chunks of {asked} bytes were asked for, and {self}")
        return min(asked or CHUNK_SIZE, self.least)

    def check_info(self, info: api.ObjectInfo, size: int | None) -> None:
        """Refuse an object whose info would be too large, before its data is sent.

        Args:
            info: The info, complete but for what the data decides.
            size: How much data there is; None where that is not known.

        Raises:
            trionats.errors.BadObjectMetaError: It is too large.
        """
        longest = LARGEST if size is None else size
        complete = replace(info, size=longest, chunks=longest, digest="SHA-256=" + "=" * 44)
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
    if place.shared:
        bare.extra[SHARES] = place.shared
    if place.info is None:
        return bare
    full = replace(place.info, deleted=True, size=0, chunks=0, digest="")
    try:
        limits.check_info(full, 0)
    except errors.BadObjectMetaError:
        return bare
    return full
