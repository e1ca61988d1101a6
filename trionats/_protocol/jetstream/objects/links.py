"""Links, to an object or to a whole bucket: what may be one, what one may replace, and where they lead (ADR-20).

An object link names another object, in any bucket of the same API, and a bucket link a whole bucket, which has no data of its
own. No client makes a link to a link (ADR-20 forbids it), but what a link names may be replaced by one later; so a few are
followed one behind the other, and the text of whatever goes wrong on the way names every one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from nats.js.api import ObjectInfo as AnyObjectInfo

from trionats import api, errors
from trionats._protocol.jetstream.buckets.kinds import OBJECTS
from trionats._protocol.jetstream.objects.infos import bad_meta
from trionats._protocol.jetstream.objects.names import encoded_name

if TYPE_CHECKING:
    from trionats._protocol.jetstream.objects.places import Place

__all__ = ["MOST_LINKS", "Way", "bucket_link", "check_place", "object_link"]

#: How many links are followed, one behind the other.
MOST_LINKS: Final = 8


def object_link(name: str, bucket: str, nuid: str, target: AnyObjectInfo) -> api.ObjectInfo:
    """Make the info of a link to an object.

    Args:
        name: The link's name, which was checked.
        bucket: Its bucket.
        nuid: One that nothing is stored under.
        target: The object.

    Raises:
        trionats.errors.BadObjectMetaError: The object was deleted, is a link itself, or is the very same.
        nats.errors.Error: Its name or its bucket's is none.
        TypeError: It is no object's info.
    """
    if not isinstance(target, AnyObjectInfo):
        raise TypeError(
            f"link {name!r} in bucket {bucket!r}: target must be an ObjectInfo, not {type(target).__name__}"
        )
    OBJECTS.checked(target.bucket)
    encoded_name(target.name, target.bucket)
    what = f"object {target.name!r} in bucket {target.bucket!r}"
    if target.deleted:
        raise bad_meta(name, bucket, f"there are no links to what was deleted, and {what} was")
    if target.is_link():
        raise bad_meta(name, bucket, f"there are no links to links, and {what} is one")
    if (target.bucket, target.name) == (bucket, name):
        raise bad_meta(name, bucket, "it cannot be a link to itself")
    return _link(name, bucket, nuid, api.ObjectLink(bucket=target.bucket, name=target.name))


def bucket_link(name: str, bucket: str, nuid: str, target: str) -> api.ObjectInfo:
    """Make the info of a link to a bucket.

    Args:
        name: As for `object_link`.
        bucket: As for `object_link`.
        nuid: As for `object_link`.
        target: The bucket's name, which was checked.
    """
    return _link(name, bucket, nuid, api.ObjectLink(bucket=target))


def _link(name: str, bucket: str, nuid: str, link: api.ObjectLink) -> api.ObjectInfo:
    options = api.ObjectMetaOptions(link=link)
    return api.ObjectInfo(str.__str__(name), bucket, nuid, size=0, chunks=0, options=options)


def check_place(place: Place, name: str, bucket: str) -> None:
    """Refuse to put a link where an object stands; what was deleted, and another link, it may replace.

    Args:
        place: What stands there.
        name: The link's name.
        bucket: Its bucket.

    Raises:
        trionats.errors.ObjectAlreadyExists: An object stands there, or what nobody can read.
    """
    if place.taken and not (place.info is not None and place.info.is_link()):
        text = f"there is an object {name!r} in bucket {bucket!r}, and a link does not replace one"
        raise errors.explained(errors.ObjectAlreadyExists, text, description=text)


@final
class Way:
    """Which places were gone through, the one that was asked for first.

    Args:
        bucket: The bucket that was asked.
        name: The object that it was asked for.
    """

    def __init__(self, bucket: str, name: str) -> None:
        self._places = [(bucket, name)]

    def __str__(self) -> str:
        (bucket, name), *others = self._places
        return " -> ".join(
            [f"object {name!r} in bucket {bucket!r}", *(f"link to {name!r} in {bucket!r}" for bucket, name in others)]
        )

    def follow(self, info: api.ObjectInfo) -> tuple[str, str] | None:
        """Go on from the info that stands in the last place.

        Args:
            info: That info.

        Returns:
            The bucket and the name that it is a link to; None for an object with data of its own.

        Raises:
            trionats.errors.LinkIsABucketError: It is a link to a bucket.
            trionats.errors.BadObjectMetaError: The links lead nowhere.
        """
        link = None if info.options is None else info.options.link
        if link is None:
            return None
        if not link.name:
            text = (
                f"{self} is a link to bucket {link.bucket!r}, which has no data: its objects are got from that bucket"
            )
            raise errors.explained(errors.LinkIsABucketError, text, description=text)
        bucket, name = self._places[0]
        step = link.bucket, link.name
        again, far = step in self._places, len(self._places) > MOST_LINKS
        self._places.append(step)
        if again:
            raise bad_meta(name, bucket, f"its links go round in a circle: {self}")
        if far:
            raise bad_meta(name, bucket, f"it leads through more than {MOST_LINKS} links: {self}")
        return step
