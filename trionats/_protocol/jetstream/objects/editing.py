"""What may be changed of an object that is there already: what is said of it, and its name.

How an object is renamed
    Its data stays where it is, and is named by another info, in three steps:

    1. its info says where the other one is going to be (`SHARES`), and else what it said before;
    2. the info of the new name is written, and says where the old one is;
    3. a marker takes the place of the old one, so that watchers hear of it. It names no data.

    Each step expects what the step before has left. Broken off behind the second, there are two names of one object. Whoever
    deletes or replaces one of them is told by it where to look, and leaves the data to the other; and the same renaming, done once
    more, is allowed to take the new name, although an object stands there: it is the same one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from nats.js.api import ObjectMetaOptions as AnyOptions

from trionats import api, errors
from trionats._protocol.jetstream.objects.infos import bad_meta
from trionats._protocol.jetstream.objects.places import SHARES
from trionats._protocol.jetstream.objects.writing import check_is_meta, new_info

if TYPE_CHECKING:
    from nats.js.api import ObjectMeta as AnyObjectMeta

    from trionats._protocol.jetstream.objects.places import Place

__all__ = ["Edit", "announced", "check_target", "edit", "gone", "is_same", "renamed"]


class Edit(NamedTuple):
    """What is to be said of an object from now on.

    Attributes:
        name: Its name; None for the one that it has.
        said: Its description, headers and metadata.
        metadata: Whether anything is said of its metadata, which nats-py's class has no word for.
        options: What was said of its options, none of which can be changed.
    """

    name: str | None
    said: api.ObjectInfo
    metadata: bool
    options: AnyOptions | None

    def of(self, info: api.ObjectInfo) -> api.ObjectInfo:
        """Make the info that says so, of the one that there is.

        Raises:
            trionats.errors.BadObjectMetaError: It is to have other options.
        """
        complaint = None if self.options is None else _options_complaint(self.options, info.options)
        if complaint is not None:
            raise bad_meta(info.name, info.bucket, complaint)
        return replace(
            info,
            name=info.name if self.name is None else self.name,
            description=self.said.description,
            headers=self.said.headers,
            metadata=self.said.metadata if self.metadata else info.metadata,
            extra=dict(info.extra),
        )


def edit(name: str, bucket: str, meta: AnyObjectMeta) -> Edit:
    """Check what a program wants to say of an object.

    Args:
        name: The object, for texts.
        bucket: Its bucket, for texts.
        meta: What it wants to say.

    Raises:
        trionats.errors.BadObjectMetaError: Something of it could not be read back as it was given.
        TypeError: `meta` is no `ObjectMeta`.
    """
    check_is_meta(name, meta)
    options = meta.options
    if options is not None and not isinstance(options, AnyOptions):
        raise bad_meta(name, bucket, f"its options must be ObjectMetaOptions, not {type(options).__name__}")
    metadata = getattr(meta, "metadata", None)
    said = new_info(name, bucket, "", api.ObjectMeta(meta.name, meta.description, meta.headers, metadata=metadata))
    new = None if meta.name is None else str.__str__(meta.name)
    return Edit(new, said, hasattr(meta, "metadata"), options)


def _options_complaint(wanted: AnyOptions, there: api.ObjectMetaOptions | AnyOptions | None) -> str | None:
    there = api.ObjectMetaOptions() if there is None else there
    if wanted.max_chunk_size not in (None, there.max_chunk_size):
        return (
            f"its chunk size cannot be changed: max_chunk_size is {there.max_chunk_size}, not {wanted.max_chunk_size!r}"
        )
    if wanted.link not in (None, there.link):
        return f"what it is a link to cannot be changed: options.link is {there.link}, not {wanted.link}"
    if getattr(wanted, "extra", None) not in (None, {}, getattr(there, "extra", None)):
        return "its options cannot be changed: options.extra says something else"
    return None


def is_same(place: Place, other: Place) -> bool:
    """Whether two places have one object, since its renaming from one to the other was broken off."""
    stands = place.info is not None and not place.info.deleted
    return stands and place.claim == other.claim and place.shared == other.subject


def check_target(target: Place, source: Place, name: str, bucket: str) -> None:
    """Refuse to give an object a name that another one has.

    Args:
        target: What stands under the new name.
        source: What stands under the old one.
        name: The new name.
        bucket: The bucket, for texts.

    Raises:
        trionats.errors.ObjectAlreadyExists: Another object stands there.
    """
    if target.taken and not is_same(target, source):
        text = f"there is an object {name!r} in bucket {bucket!r} already"
        raise errors.explained(errors.ObjectAlreadyExists, text, description=text)


def announced(info: api.ObjectInfo, target: Place) -> api.ObjectInfo:
    """Make the old name's info say where the new one is going to be."""
    return replace(info, extra={**info.extra, SHARES: target.subject})


def renamed(info: api.ObjectInfo, source: Place) -> api.ObjectInfo:
    """Make the new name's info say where the old one was."""
    return replace(info, extra={**info.extra, SHARES: source.subject})


def gone(info: api.ObjectInfo, nuid: str, other: Place) -> api.ObjectInfo:
    """Make the marker that takes the place of one of two infos of an object.

    Args:
        info: The info that goes.
        nuid: One that nothing is stored under: the data is the other one's, and whoever deletes this name once more purges nothing.
        other: Where the other one is.
    """
    extra = {SHARES: other.subject}
    return api.ObjectInfo(info.name, info.bucket, nuid, size=0, chunks=0, digest="", deleted=True, extra=extra)
