"""The way from a name to an object: over the links that are followed.

An object link names another object, in any bucket of the same API, and a bucket link a whole bucket, which has no data of its
own. No client makes a link to a link (ADR-20 forbids it), but what a link names may be replaced by one later; so a few are
followed one behind the other, and the text of whatever goes wrong on the way names every one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from trionats import errors
from trionats._protocol.jetstream.objects.infos import bad_meta

if TYPE_CHECKING:
    from trionats import api

__all__ = ["MOST_LINKS", "Way"]

#: How many links are followed, one behind the other.
MOST_LINKS: Final = 8


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
