"""Acknowledged publish, and the buckets of object stores; streams and consumers come with `_management`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import NoneType
from typing import TYPE_CHECKING, Literal, Never, Unpack, final

import trio
from multidict import MultiDict
from nats.js import api as nats_api

from trionats import api, errors
from trionats._client import provide_jetstream
from trionats._core.deadlines import unexpected
from trionats._jetstream.api import Origin, decode, refusal_text, unreadable
from trionats._jetstream.destination import Destination
from trionats._jetstream.management import Management
from trionats._protocol import fields, subjects
from trionats._protocol.jetstream.publishing import time_to_live
from trionats._protocol.replies import no_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trionats._client import Client
    from trionats._core.message import Msg
    from trionats._jetstream.objects.store import ObjectStore

#: A stream without a leader has no subscriber for a moment: how often, and after how many seconds, to try again (ADR-22).
PUBLISH_RETRIES = 2
PUBLISH_RETRY_WAIT = 0.25
#: A message of the same id is being stored: what it becomes is known soon.
UNDER_WAY = 10158
UNDER_WAY_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
WRONG_LAST = frozenset({10070, 10071, 10164})
BUCKET_NAME_LIMIT = 251


def publish_ack(doing: str, msg: Msg) -> api.PubAck:
    """Read the acknowledgement of a publish.

    Args:
        doing: What the message was published for, for the text of an exception.
        msg: The reply.

    Returns:
        Which stream stored the message, and as what.

    Raises:
        trionats.errors.APIError: The stream refused the message, or what replied is no stream.
    """
    answer = decode(doing, msg.data)
    get = answer.get
    stream, seq, domain, duplicate = get("stream"), get("seq"), get("domain"), get("duplicate")
    batch, count, val = get("batch"), get("count"), get("val")
    # Written out, since it is done for each message: every field is what it should be, or not there.
    if not (
        isinstance(stream, str)
        and type(seq) is int
        and isinstance(domain, (str, NoneType))
        and isinstance(duplicate, (bool, NoneType))
        and isinstance(batch, (str, NoneType))
        and (count is None or type(count) is int)
        and isinstance(val, (str, NoneType))
    ):
        raise unreadable(doing, f"it is no acknowledgement of a stream: {msg.data[:80]!r}")
    return api.PubAck(stream, seq, domain, duplicate, batch, count, val)


@final
class JetStream(Management):
    """JetStream as one client sees it, at one API prefix: streams, consumers, stores, acknowledged publish.

    Made by `Client.jetstream`. It holds no state of its own and needs no closing.
    """

    def __repr__(self) -> str:
        return f"<JetStream at {self.prefix!r}>"

    async def publish(
        self,
        subject: str,
        payload: bytes | str = b"",
        *,
        stream: str | None = None,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        msg_id: str | None = None,
        msg_ttl: float | Literal["never"] | None = None,
        expected_last_sequence: int | None = None,
        expected_last_subject_sequence: int | None = None,
        expected_last_msg_id: str | None = None,
        **unknown: Never,
    ) -> api.PubAck:
        """Publish a message and wait until a stream has stored it.

        Cancelled after the message was queued, it may have been stored all the same. Publishing it again with the same
        `msg_id`, within the stream's duplicate window, is then safe: it is stored once. While the first is still under
        way, the second waits for it, for some seconds. A stream with one replica looks at expectations before it looks
        for duplicates, so its conflict may be with the very same message: before one is raised, the last message of the
        subject is looked at (if the user may publish to `$JS.API.STREAM.MSG.GET.<stream>`), and one with this id is a
        duplicate. What was stored since under other subjects or ids can still make a repeated publish a conflict.

        Where the context was made for a domain (`Client.jetstream(domain=)`), only a stream of that domain counts.
        Streams of other domains that listen on the same subject store the message as well, which a
        `trionats.events.StoredElsewhere` event tells. A refusal does not say where it comes from, so it is raised only
        when no acknowledgement has come within 100 ms and four round trips of the API (0.5 s as long as that was not
        asked anything).

        Args:
            subject: Where to; a stream must listen there.
            payload: The message; text is encoded as UTF-8.
            stream: Refuse unless this is the stream that takes it.
            headers: More headers.
            msg_id: A second message of the same id within the stream's duplicate window is dropped.
            msg_ttl: The stream forgets the message after so many whole seconds (server 2.11), from 1 to 9223372036, or
                "never". It must allow that (`allow_msg_ttl`). All but "never" ends at its `max_age`, and unless it
                keeps one message for each subject, less than its `subject_delete_marker_ttl` is stretched to that.
            expected_last_sequence: Refuse unless this is the stream's last sequence.
            expected_last_subject_sequence: Refuse unless this is the sequence of the subject's last message; 0 for none.
            expected_last_msg_id: Refuse unless this is the id of the stream's last message.

        Returns:
            The stream and the sequence that the message got, and whether it was a duplicate. The sequence of a
            duplicate is that of the first, which may have been deleted since.

        Raises:
            trionats.errors.NoStreamResponseError: No stream listens on the subject, or none in the domain that was
                asked for.
            trionats.errors.APIError: The stream refused.
            TypeError: `msg_ttl` is neither a number nor "never".
            ValueError: `msg_ttl` is no number of whole seconds.
        """
        if unknown:
            raise unexpected("publish", unknown, "js")
        doing = f"publish to {subject!r}"
        own = {
            api.Header.EXPECTED_STREAM.value: stream,
            api.Header.MSG_ID.value: msg_id,
            api.Header.MSG_TTL.value: None if msg_ttl is None else time_to_live(doing, msg_ttl),
            api.Header.EXPECTED_LAST_SEQUENCE.value: expected_last_sequence,
            api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: expected_last_subject_sequence,
            api.Header.EXPECTED_LAST_MSG_ID.value: expected_last_msg_id,
        }
        asked = {key: str(value) for key, value in own.items() if value is not None}
        data = str.encode(payload) if isinstance(payload, str) else payload
        sent = _joined(doing, headers, asked)
        return await self._publish_until_known(doing, subject, data, sent, msg_id)

    async def create_object_store(
        self,
        bucket: str | None = None,
        config: nats_api.ObjectStoreConfig | None = None,
        **params: Unpack[api.ObjectStoreParams],
    ) -> ObjectStore:
        """Create a bucket for objects; an existing one of the same configuration is as good.

        Args:
            bucket: Its name: letters, digits, `-` and `_`. May stand in `config` instead.
            config: The configuration, nats-py's class or ours.
            params: Fields of `ObjectStoreConfig` that replace those of `config`.

        Returns:
            The bucket.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.APIError: The server refused, for instance because the bucket exists with another configuration.
        """
        wanted = _object_store_config(bucket, config, params)
        name = _bucket_name(wanted.bucket or "")
        try:
            info = await self.add_stream(_object_stream(name, wanted))
        except errors.APIError as error:
            raise _of_bucket(name, error) from None
        return _object_store_factory[0](self, name, name, max_msg_size(info))

    async def object_store(self, bucket: str) -> ObjectStore:
        """Find a bucket of objects.

        Args:
            bucket: Its name.

        Returns:
            The bucket.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.BucketNotFoundError: There is no such bucket.
        """
        name = _bucket_name(bucket)
        try:
            info = await self.stream_info(f"OBJ_{name}")
        except errors.NotFoundError as error:
            raise bucket_not_found(name, error) from None
        origin = _origin(info, self.prefix)
        self.whereabouts.origin_found(f"OBJ_{name}", origin)
        subjects_of = name if origin is None else origin.stream.removeprefix("OBJ_")
        return _object_store_factory[0](self, name, subjects_of, max_msg_size(info))

    async def delete_object_store(self, bucket: str) -> bool:
        """Delete a bucket with all its objects.

        Args:
            bucket: Its name.

        Returns:
            True.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.BucketNotFoundError: There is no such bucket.
        """
        name = _bucket_name(bucket)
        try:
            return await self.delete_stream(f"OBJ_{name}")
        except errors.NotFoundError as error:
            raise bucket_not_found(name, error) from None

    # Inside.

    async def _publish_until_known(
        self,
        doing: str,
        subject: str,
        data: bytes,
        sent: Mapping[str, str | Sequence[str]] | None,
        msg_id: str | None,
    ) -> api.PubAck:
        tries, pauses = PUBLISH_RETRIES, iter(UNDER_WAY_PAUSES)
        while True:
            try:
                return await self._publish(doing, subject, data, sent)
            except errors.NoRespondersError:
                if not tries:
                    raise no_stream(doing) from None
                tries -= 1
                pause = PUBLISH_RETRY_WAIT
            except errors.APIError as error:
                if error.err_code == UNDER_WAY:
                    pause = next(pauses, 0.0)
                elif msg_id is not None and error.err_code in WRONG_LAST:
                    before = await self._stored_before(error.stream or "", subject, msg_id)  # noqa: ASYNC120 - as it should
                    if before is not None:
                        return before
                    pause = 0.0
                else:
                    raise
                if not pause:
                    raise
            await trio.sleep(pause)

    async def _publish(
        self, doing: str, subject: str, data: bytes, headers: Mapping[str, str | Sequence[str]] | None
    ) -> api.PubAck:
        if self.whereabouts.chosen is None:
            return publish_ack(doing, await self._nc.request(subject, data, headers=headers))
        destination = Destination(self, subject, doing, self.whereabouts.named or self.whereabouts.chosen)
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                reply = self._nc.request_nowait(subject, data, headers, chooser=destination.chooser())
            except trio.WouldBlock:
                await self._nc.wait_writable()
                continue
            with reply:
                try:
                    msg = await reply.wait()
                except errors.NoStreamResponseError as error:
                    raise no_stream(doing, str(error)) from None
            return publish_ack(destination.doing, msg)

    async def _stored_before(self, stream: str, subject: str, msg_id: str) -> api.PubAck | None:
        """Find out whether what is in the way is the very message, stored by an earlier publish."""
        try:
            last = await self.get_last_msg(stream, subject)
        except (errors.Error, ValueError):
            return None
        if last.seq is None or (last.headers or {}).get(api.Header.MSG_ID.value) != msg_id:
            return None
        return api.PubAck(stream, last.seq, self.whereabouts.named, duplicate=True)


_object_store_factory: list[Callable[[JetStream, str, str, int], ObjectStore]] = []


def provide_object_stores(factory: Callable[[JetStream, str, str, int], ObjectStore]) -> None:
    """Let the floor above say what a bucket of objects is; this floor imports nothing from it.

    Args:
        factory: Called with the context, the bucket's name, the name of the bucket whose subjects it holds, and how
            large a message its stream takes (`max_msg_size`).
    """
    _object_store_factory[:] = [factory]


def _jetstream(nc: Client, domain: str | None, prefix: str | None) -> JetStream:
    if domain is not None and prefix is not None:
        raise ValueError(f"either a JetStream domain ({domain!r}) or a prefix ({prefix!r}), not both")
    chosen = f"$JS.{domain}.API" if domain is not None else prefix if prefix is not None else api.DEFAULT_PREFIX
    subjects.publish_subject(chosen)
    return JetStream(nc, chosen, domain)


provide_jetstream(_jetstream)


def max_msg_size(info: api.StreamInfo) -> int:
    """Say how large a message a stream takes, headers and payload together; 0 where it sets no limit."""
    size = info.config.max_msg_size
    return size if isinstance(size, int) and size > 0 else 0


def bucket_not_found(bucket: str, error: errors.NotFoundError) -> errors.BucketNotFoundError:
    """Make the exception for an object store whose stream is not there."""
    return errors.explained(errors.BucketNotFoundError, f"there is no object store {bucket!r}", **vars(error))


def _joined(
    doing: str, headers: Mapping[str, str | Sequence[str]] | None, asked: Mapping[str, str]
) -> Mapping[str, str | Sequence[str]] | None:
    """Put what the call's own arguments say over the headers; a name that repeats stays so."""
    if not headers:
        return asked or None
    if not isinstance(headers, Mapping):
        raise TypeError(f"{doing}: headers must be a mapping, not {type(headers).__name__}")
    joined: MultiDict[str | Sequence[str]] = MultiDict(headers)
    joined.update(asked)
    return joined


def _bucket_name(bucket: str) -> str:
    # The server's limit for a stream's name is 255; a much longer one would end the connection.
    if isinstance(bucket, str) and len(bucket) > BUCKET_NAME_LIMIT:
        text = f"bucket {bucket[:40]!r}...: a name has at most {BUCKET_NAME_LIMIT} letters"
        raise errors.explained(errors.InvalidBucketNameError, text, description=text)
    return subjects.bucket_name(bucket)


def _of_bucket(bucket: str, error: errors.APIError) -> errors.APIError:
    return errors.explained(type(error), refusal_text(f"object store {bucket!r}", error), **vars(error))


def _object_store_config(
    bucket: str | None, config: nats_api.ObjectStoreConfig | None, params: api.ObjectStoreParams
) -> api.ObjectStoreConfig:
    call = "create_object_store"
    ours = api.ObjectStoreConfig()
    if config is not None:
        if not isinstance(config, nats_api.ObjectStoreConfig):
            raise TypeError(f"{call}: config must be an ObjectStoreConfig, not {type(config).__name__}")
        # nats-py's own class, which a program may still hold, has neither compression nor metadata.
        ours = replace(ours, **{key: value for key, value in vars(config).items() if value is not None})
    name = {} if bucket is None else {"bucket": _bucket_name(bucket)}
    return fields.merged(call, api.ObjectStoreConfig, ours, {**name, **params})


def _object_stream(bucket: str, config: api.ObjectStoreConfig) -> api.StreamConfig:
    compression = config.compression
    if isinstance(compression, bool):
        compression = api.StoreCompression.S2 if compression else None
    return api.StreamConfig(
        name=f"OBJ_{bucket}",
        description=config.description,
        subjects=[f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        discard=api.DiscardPolicy.NEW,
        max_age=config.ttl,
        # Zero bytes is how "no limit" is written by who comes from Go.
        max_bytes=config.max_bytes or None,
        storage=config.storage,
        num_replicas=config.replicas,
        placement=config.placement,
        compression=compression,
        metadata=config.metadata,
        allow_rollup_hdrs=True,
        allow_direct=True,
    )


def _origin(info: api.StreamInfo, prefix: str) -> Origin | None:
    """Find the bucket whose messages, and subjects, a mirror holds."""
    mirror = info.config.mirror
    if mirror is None or mirror.subject_transforms or not mirror.name.startswith("OBJ_"):
        return None
    if not mirror.external:
        return Origin(prefix, mirror.name, None)
    form = re.fullmatch(r"\$JS\.([^.]+)\.API", mirror.external.api)
    return Origin(mirror.external.api, mirror.name, form[1] if form is not None else "")
