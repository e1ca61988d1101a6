"""Streams, consumers' management, acknowledged publish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Unpack, final

import trio
from multidict import MultiDict

from trionats import api, errors
from trionats._client import provide_jetstream
from trionats._management import Management, decode
from trionats._protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats.js.api import ObjectStoreConfig as AnyObjectStoreConfig

    from trionats._client import Client
    from trionats._message import Msg
    from trionats._objects import ObjectStore

#: A stream without a leader has no subscriber for a moment: how often, and after how many seconds, to try again (ADR-22).
PUBLISH_RETRIES = 2
PUBLISH_RETRY_WAIT = 0.25
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
    if not isinstance(answer.get("stream"), str) or not isinstance(answer.get("seq"), int):
        decode(doing, b"")
    return api.PubAck.from_response(answer)


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
        msg_ttl: float | None = None,
        expected_last_sequence: int | None = None,
        expected_last_subject_sequence: int | None = None,
        expected_last_msg_id: str | None = None,
    ) -> api.PubAck:
        """Publish a message and wait until a stream has stored it.

        Cancelled after the message was queued, it may have been stored all the same; publishing again with the same
        `msg_id` is then safe.

        Args:
            subject: Where to; a stream must listen there.
            payload: The message; text is encoded as UTF-8.
            stream: Refuse unless this is the stream that takes it.
            headers: More headers.
            msg_id: A second message of the same id within the stream's duplicate window is dropped.
            msg_ttl: The stream forgets the message after so many seconds (server 2.11).
            expected_last_sequence: Refuse unless this is the stream's last sequence.
            expected_last_subject_sequence: Refuse unless this is the sequence of the subject's last message; 0 for none.
            expected_last_msg_id: Refuse unless this is the id of the stream's last message.

        Returns:
            The stream and the sequence that the message got, and whether it was a duplicate.

        Raises:
            trionats.errors.NoStreamResponseError: No stream listens on the subject.
            trionats.errors.APIError: The stream refused.
        """
        fields = {
            api.Header.EXPECTED_STREAM.value: stream,
            api.Header.MSG_ID.value: msg_id,
            api.Header.MSG_TTL.value: None if msg_ttl is None else f"{msg_ttl:g}s",
            api.Header.EXPECTED_LAST_SEQUENCE.value: expected_last_sequence,
            api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: expected_last_subject_sequence,
            api.Header.EXPECTED_LAST_MSG_ID.value: expected_last_msg_id,
        }
        asked = {key: str(value) for key, value in fields.items() if value is not None}
        data = str.encode(payload) if isinstance(payload, str) else payload
        doing = f"publish to {subject!r}"
        fields_sent = _joined(doing, headers, asked)
        for attempt in range(PUBLISH_RETRIES + 1):
            if attempt:
                await trio.sleep(PUBLISH_RETRY_WAIT)
            try:
                msg = await self._nc.request(subject, data, headers=fields_sent)
            except errors.NoRespondersError:
                continue
            return publish_ack(doing, msg)
        raise no_stream(doing)

    async def create_object_store(
        self,
        bucket: str | None = None,
        config: AnyObjectStoreConfig | None = None,
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
            await self.add_stream(_object_stream(name, wanted))
        except errors.APIError as error:
            raise _of_bucket(name, error) from None
        return _object_store_factory[0](self, name, name)

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
            raise _bucket_not_found(name, error) from None
        return _object_store_factory[0](self, name, _origin(info) or name)

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
            raise _bucket_not_found(name, error) from None


_object_store_factory: list[Callable[[JetStream, str, str], ObjectStore]] = []


def provide_object_stores(factory: Callable[[JetStream, str, str], ObjectStore]) -> None:
    """Let the floor above say what a bucket of objects is; this floor imports nothing from it.

    Args:
        factory: Called with the context, the bucket's name, and the name of the bucket whose subjects it holds.
    """
    _object_store_factory[:] = [factory]


def _jetstream(nc: Client, domain: str | None, prefix: str | None) -> JetStream:
    if domain is not None and prefix is not None:
        raise ValueError(f"either a JetStream domain ({domain!r}) or a prefix ({prefix!r}), not both")
    chosen = f"$JS.{domain}.API" if domain is not None else prefix if prefix is not None else api.DEFAULT_PREFIX
    subjects.publish_subject(chosen)
    return JetStream(nc, chosen)


provide_jetstream(_jetstream)


def no_stream(doing: str) -> errors.NoStreamResponseError:
    """Make the exception for a subject that no stream listens on."""
    text = f"{doing}: no stream answers there"
    return errors.explained(errors.NoStreamResponseError, text, description=text)


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


def _bucket_not_found(bucket: str, error: errors.NotFoundError) -> errors.BucketNotFoundError:
    return errors.explained(errors.BucketNotFoundError, f"there is no object store {bucket!r}", **vars(error))


def _of_bucket(bucket: str, error: errors.APIError) -> errors.APIError:
    text = f"object store {bucket!r}: {error.description} (code {error.code}, error {error.err_code})"
    return errors.explained(type(error), text, **vars(error))


def _object_store_config(
    bucket: str | None, config: AnyObjectStoreConfig | None, params: api.ObjectStoreParams
) -> api.ObjectStoreConfig:
    # nats-py's own class, which a program may still hold, has neither compression nor metadata.
    given = {} if config is None else {key: value for key, value in vars(config).items() if value is not None}
    name = {} if bucket is None else {"bucket": bucket}
    return api.ObjectStoreConfig(**{**given, **name, **params})


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


def _origin(info: api.StreamInfo) -> str | None:
    """Find the bucket whose subjects a mirror holds."""
    mirror = info.config.mirror
    if mirror is None or mirror.subject_transforms or not mirror.name.startswith("OBJ_"):
        return None
    return mirror.name.removeprefix("OBJ_")
