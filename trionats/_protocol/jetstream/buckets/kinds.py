"""The kinds of buckets, how their streams and subjects are named, and which streams are buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, final

from trionats import errors
from trionats._protocol import subjects

if TYPE_CHECKING:
    from trionats import api

__all__ = ["KEY_VALUE", "OBJECTS", "Kind"]

#: The server's limit for a stream's name is 255; a much longer one would end the connection.
_NAME_LIMIT: Final = 251


@final
class Kind(NamedTuple):
    """A kind of bucket.

    Attributes:
        noun: What one is called.
        streams: How the names of their streams begin.
        subjects: How the subjects that they store begin.
    """

    noun: str
    streams: str
    subjects: str

    def title(self, bucket: str) -> str:
        """Name a bucket, for people."""
        return f"{self.noun} {bucket!r}"

    def stream(self, bucket: str) -> str:
        """Name the stream that holds a bucket."""
        return self.streams + bucket

    def prefix(self, bucket: str) -> str:
        """Say how the subjects begin under which a bucket's own messages are stored."""
        return f"{self.subjects}{bucket}."

    def bucket_of(self, stream: str) -> str:
        """Name the bucket whose stream has a name; a name without a stream's beginning is a bucket's own."""
        return stream.removeprefix(self.streams)

    def checked(self, bucket: str) -> str:
        """Check a bucket's name.

        Raises:
            trionats.errors.InvalidBucketNameError: It is none.
            TypeError: It is no text.
        """
        if isinstance(bucket, str) and len(bucket) > _NAME_LIMIT:
            text = f"bucket {bucket[:40]!r}...: a name has at most {_NAME_LIMIT} letters"
            raise errors.explained(errors.InvalidBucketNameError, text, description=text)
        return subjects.bucket_name(bucket)

    def complaint(self, bucket: str, config: api.StreamConfig) -> str | None:
        """Say why a stream that has a bucket's name is none; None where it is one.

        What counts is what reading relies on: where its messages stand, and that keys have a history at all. A mirror may
        keep more of it than its origin does.

        Args:
            bucket: The bucket.
            config: The configuration of the stream.
        """
        if config.mirror is not None:
            name = config.mirror.name
            return None if name.startswith(self.streams) else f"it mirrors stream {name!r}, which is no {self.noun}'s"
        own = self.prefix(bucket)
        collects = not config.subjects and config.sources
        if not collects and not any(subject.startswith(own) for subject in config.subjects or ()):
            return f"its subjects are {config.subjects or []}, and not {own}>"
        if self is KEY_VALUE and (config.max_msgs_per_subject or 0) < 1:
            return "it has no limit for the history of a key"
        return None

    def found_in(self, config: api.StreamConfig) -> str | None:
        """Name the bucket of this kind that a stream is; None where it is none."""
        name = config.name or ""
        try:
            bucket = self.checked(self.bucket_of(name))
        except errors.InvalidBucketNameError:
            return None
        return bucket if name.startswith(self.streams) and self.complaint(bucket, config) is None else None


KEY_VALUE: Final = Kind("key-value bucket", "KV_", "$KV.")
OBJECTS: Final = Kind("object store", "OBJ_", "$O.")
