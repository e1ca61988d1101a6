"""Buckets of either kind: made, found, changed, listed and deleted, as the streams that they are.

What a configuration says of a stream, which streams are buckets and what two configurations have in common is decided in
`_protocol.jetstream.buckets`; what each kind has of its own, beside `kv` and `objects` there. Here it is asked, and whatever is
refused says of the bucket what the server says of its stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats import errors
from trionats._jetstream.api import about, api_error, in_store, refusal_text
from trionats._jetstream.management import STREAM_EXISTS, JetStreamManager
from trionats._protocol.jetstream.buckets.configs import unlike, updated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trionats import api
    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.buckets.kinds import Kind

__all__ = ["Buckets"]


@final
class Buckets:
    """The buckets of one kind.

    Args:
        jetstream: Where they are.
        kind: Which kind.
    """

    def __init__(self, jetstream: Api[Messaging], kind: Kind) -> None:
        self._api, self._kind = jetstream, kind
        self._streams = JetStreamManager(jetstream)

    async def create(self, bucket: str, config: api.StreamConfig, said: Mapping[str, object]) -> api.StreamInfo:
        """Create a bucket; an existing one of which its configuration says the same is as good.

        Args:
            bucket: The bucket.
            config: The configuration of its stream.
            said: What of it the bucket's own configuration says.

        Raises:
            trionats.errors.APIError: The server refused, or the bucket exists with another configuration.
        """
        with about(self._kind.title(bucket)):
            try:
                return await self._streams.add_stream(config)
            except errors.APIError as error:
                if error.err_code != STREAM_EXISTS:
                    raise
                refused = error.with_traceback(None)  # which leads to this frame
        return await self._as_good(bucket, said, refused)

    async def _as_good(self, bucket: str, said: Mapping[str, object], refused: errors.APIError) -> api.StreamInfo:
        """Find the bucket that is in the way, if it is one of the same configuration; else raise what the server said."""
        title = self._kind.title(bucket)
        try:
            info = await self.find(bucket)
        except errors.BadBucketError:
            raise
        except errors.Error:
            raise _of(title, refused) from None  # nobody may ask, or it has been deleted meanwhile
        other = unlike(said, info.config)
        if other:
            raise _of(title, refused, f": another {', '.join(other)}")
        return info

    async def find(self, bucket: str) -> api.StreamInfo:
        """Find a bucket.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.BucketNotFoundError: There is none.
            trionats.errors.BadBucketError: There is a stream of its name, which is none.
        """
        title = self._kind.title(self._kind.checked(bucket))
        with in_store(title):
            info = await self._streams.stream_info(self._kind.stream(bucket))
        complaint = self._kind.complaint(bucket, info.config)
        if complaint is not None:
            text = f"{title}: stream {self._kind.stream(bucket)!r} is none: {complaint}"
            raise api_error(errors.BadBucketError, text, complaint)
        return info

    async def update(self, bucket: str, changes: Mapping[str, object]) -> api.StreamInfo:
        """Change a bucket: just what `changes` say, in the configuration that it has.

        Raises:
            trionats.errors.BucketNotFoundError: There is none.
            trionats.errors.APIError: The server refused.
            ValueError: It cannot be changed.
        """
        now = (await self.find(bucket)).config
        title = self._kind.title(bucket)
        wanted = updated(title, now, changes)
        with in_store(title), about(title):
            return await self._streams.update_stream(wanted, name=self._kind.stream(bucket))

    async def ensure(self, bucket: str, config: api.StreamConfig, said: Mapping[str, object]) -> api.StreamInfo:
        """Let there be a bucket of this configuration, whether one of the name exists or not."""
        try:
            return await self.update(bucket, said)
        except errors.BucketNotFoundError:
            pass
        try:
            return await self.create(bucket, config, said)
        except errors.APIError as error:
            if error.err_code != STREAM_EXISTS:
                raise
        return await self.update(bucket, said)  # somebody has created it meanwhile

    async def delete(self, bucket: str) -> bool:
        """Delete a bucket with all that it holds.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.BucketNotFoundError: There is none.
        """
        stream = self._kind.stream(self._kind.checked(bucket))
        with in_store(self._kind.title(bucket)):
            deleted = await self._streams.delete_stream(stream)
        self._api.whereabouts.origin_found(stream, None)
        return deleted

    async def all(self) -> dict[str, api.StreamInfo]:
        """List the streams that are buckets of this kind, by the buckets' names.

        Streams without subjects, as mirrors are, are found by no subject, so it is the list of all streams that is read.
        """
        found = [(self._kind.found_in(info.config), info) for info in await self._streams.streams_info()]
        return {bucket: info for bucket, info in found if bucket is not None}


def _of(title: str, error: errors.APIError, more: str = "") -> errors.APIError:
    """Say of what a stream refused that the bucket refused it."""
    return errors.explained(type(error), refusal_text(title, error) + more, **vars(error))
