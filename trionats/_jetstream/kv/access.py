"""A key-value bucket as all that is done in it sees it: what its keys are called, what stands there, and how it is written.

Who is asked
    A get asks whoever answers direct gets, which may be a replica that is behind (ADR-31): what it gives was the key's value at some
    time, and mostly is. What it denies is believed of nobody but the stream's leader (design 87): that there is no such key, and
    that it is deleted. With `leader` only the leader is asked, and what it gives holds whatever was acknowledged before; for a mirror
    it is the leader of its origin.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeVar, final

from trionats import api, errors
from trionats._jetstream.api import NO_MESSAGE, about, api_error, in_store
from trionats._jetstream.direct import ask_replica
from trionats._jetstream.publishing.destination import bucket_destination, written_at
from trionats._jetstream.publishing.publish import encoded, publish_until_known
from trionats._protocol.jetstream.direct import read_leaders
from trionats._protocol.jetstream.kv.entries import operation_of
from trionats._protocol.jetstream.kv.keys import checked_key, checked_new_key
from trionats._protocol.jetstream.kv.writing import NO_MSG_TTL, write_headers
from trionats._protocol.jetstream.levels import Need
from trionats._protocol.jetstream.publishing.publish import is_conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._jetstream.kv.buckets import KeyValueBucket
    from trionats._protocol.jetstream.kv.codecs import Codecs
    from trionats._protocol.jetstream.kv.entries import Operation

__all__ = ["Access", "KeyGoneError", "checked_value", "is_gone"]

E = TypeVar("E", bound=errors.KeyNotFoundError)

_MSG_TTL: Final = Need("msg_ttl", 1)


class KeyGoneError(errors.KeyDeletedError, errors.KeyNotFoundError):
    """The key was deleted or purged, or its time is over; for who does not care why, it is simply not found."""


@final
class Access:
    """A bucket, for those who read and write its keys.

    Args:
        jetstream: Where the bucket is.
        names: The bucket's names.
        codecs: What gives keys and values another form in it; None where nothing does.
    """

    def __init__(self, jetstream: Api[Publishing], names: KeyValueBucket, codecs: Codecs | None = None) -> None:
        self.api = jetstream
        self.names = names
        self.codecs = codecs

    def stored_key(self, key: str) -> str:
        """Check a key, and give it as it stands in the bucket.

        Raises:
            trionats.errors.InvalidKeyError: It is none.
            TypeError: It is no text.
        """
        return checked_key(self.names.name, self._encoded_key(key), key)

    def new_key(self, key: str) -> str:
        """Check a key under which something is to be stored, and give it as it stands in the bucket, as `stored_key` does."""
        return checked_new_key(self.names.name, self._encoded_key(key), key)

    def _encoded_key(self, key: str) -> str:
        return key if self.codecs is None else self.codecs.encode_key(key)

    def stored_value(self, doing: str, value: bytes | str) -> bytes:
        """Check a value, and give it as it stands in the bucket; errors as for `checked_value`."""
        data = checked_value(doing, value)
        return data if self.codecs is None else self.codecs.encode_value(bytes(data))

    # Reading.

    async def get(self, key: str, revision: int | None, *, leader: bool) -> api.KeyValueEntry:
        """Read a key's value, as `KeyValue.get` says."""
        names = self.names
        subject = names.read_prefix + self.stored_key(key)
        what = f"key {key!r} of bucket {names.name!r}"
        asked: dict[str, object] = {"last_by_subj": subject} if revision is None else {"seq": revision}
        found = await self._message(asked, what, leader=leader)
        if found is None or found.subject != subject:
            raise _not_found(what if revision is None else f"revision {revision} of {what}")
        entry = self._entry(key, found, what)
        if entry.operation is not None:
            raise _gone(what, entry)
        return entry

    async def last(self, stored_key: str) -> api.StoredMsg | None:
        """Read the last message of a key as the leader has it, a marker too; None where there is none.

        Args:
            stored_key: The key, as it stands in the bucket.
        """
        what = f"key {stored_key!r} of bucket {self.names.name!r}"
        return await self._message({"last_by_subj": self.names.read_prefix + stored_key}, what, leader=True)

    async def _message(self, asked: Mapping[str, object], what: str, *, leader: bool) -> api.StoredMsg | None:
        names, stream = self.names, self.names.stream
        # What was acknowledged is at a mirror's origin. What a mirror denies it denies alone, since the origin may be out of reach.
        there, written = written_at(self.api, stream) if leader else (self.api, stream)
        replicas: api.StoredMsg | None = None
        answered = False
        with in_store(str(names)), about(what):
            if names.direct and not leader:
                with suppress(errors.ServiceUnavailableError):
                    replicas = await ask_replica(self.api, stream, asked)
                    answered = True
                if replicas is not None and replicas.stream != stream:
                    # A mirror's: it may have been given a part only, or keep what is gone.
                    replicas = None
                if replicas is not None and ("seq" in asked or not is_gone(replicas)):
                    return replicas
            try:
                message = await there.stored(written, asked)
            except errors.PermissionsViolationError:
                # What a replica has said is all that this user may hear.
                if not answered:
                    raise
                return replicas
            return None if message is None else read_leaders(written, message)

    def _entry(self, key: str, found: api.StoredMsg, what: str) -> api.KeyValueEntry:
        operation, value = operation_of(found.headers), found.data
        if self.codecs is not None and operation is None:
            try:
                value = self.codecs.decode_value(value)
            except Exception as error:  # a codec may raise whatever it likes
                text = f"the value of {what} in revision {found.seq} cannot be decoded: {error}"
                raise api_error(errors.KeyValueError, text, text) from error
        return api.KeyValueEntry(self.names.name, key, value, found.seq, found.time, 0, operation)

    # Writing.

    async def write(
        self,
        doing: str,
        stored_key: str,
        data: bytes = b"",
        *,
        operation: Operation | None = None,
        last: int | None = None,
        msg_ttl: float | Literal["never"] | None = None,
    ) -> int:
        """Write a key.

        Args:
            doing: What it is written for, for the text of exceptions.
            stored_key: The key, as it stands in the bucket.
            data: The value, as it stands there.
            operation: None where it is a value, else which marker.
            last: Which revision the key's last one has to be, 0 for none at all; None for any.
            msg_ttl: How many whole seconds the message is to live, or "never".

        Returns:
            The new revision.

        Raises:
            trionats.errors.KeyWrongLastSequenceError: The last revision is another one.
            trionats.errors.APIError: The stream refused.
            trionats.errors.DisconnectedError: Whether it was stored is not known.
        """
        names, jetstream = self.names, self.api
        plain = operation is None and last is None and msg_ttl is None
        headers = None if plain else write_headers(doing, operation=operation, last=last, msg_ttl=msg_ttl)
        if msg_ttl is not None:
            # An older server would store it for ever, without a word.
            await jetstream.require(doing, _MSG_TTL)
        subject = names.write_prefix + stored_key
        # One domain needs no look at what others say.
        anywhere = jetstream.whereabouts.domain_of(names.stream) is None
        destination = None if anywhere else bucket_destination(jetstream, names.stream, subject, doing)
        try:
            ack = await publish_until_known(jetstream, doing, subject, data, headers, {}, destination)
        except errors.APIError as error:
            raise _refused(doing, error, last) from None
        except (errors.DisconnectedError, errors.TimeoutError) as error:
            text = f"{doing}: {error}; whether it was stored is not known"
            raise errors.explained(type(error), text, **vars(error)) from error
        origin = jetstream.whereabouts.origin(names.stream)
        if ack.stream != (names.stream if origin is None else origin.stream):
            text = f"{doing}: it was stored in stream {ack.stream!r}, which is not the bucket's"
            raise api_error(errors.APIError, text, text)
        return ack.seq


def checked_value(doing: str, value: bytes | str) -> bytes:
    """Check a value, and give it as bytes.

    Raises:
        ValueError: It is text that has no form in UTF-8.
        TypeError: It is neither text nor bytes.
    """
    data = encoded(doing, value, "value")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{doing}: value must be bytes or str, not {type(data).__name__}")
    return data


def is_gone(last: api.StoredMsg | None) -> bool:
    """Whether a key whose last message this is has no value."""
    return last is None or operation_of(last.headers) is not None


def _not_found(what: str) -> errors.KeyNotFoundError:
    return _without_value(errors.KeyNotFoundError, f"there is no {what}", err_code=NO_MESSAGE)


def _gone(what: str, entry: api.KeyValueEntry) -> KeyGoneError:
    how = "purged, or its time is over" if entry.operation == "PURGE" else "deleted"
    return _without_value(KeyGoneError, f"{what} was {how} (revision {entry.revision})", entry, seq=entry.revision)


def _without_value(kind: type[E], text: str, entry: api.KeyValueEntry | None = None, **numbers: int) -> E:
    """Make the exception for a key that has no value, with all that nats-py's classes say of it."""
    error = api_error(kind, text, text, code=404, **numbers)
    vars(error).update(entry=entry, op=None if entry is None else entry.operation, message=None)
    return error


def _refused(doing: str, error: errors.APIError, last: int | None) -> errors.APIError:
    if is_conflict(error):
        expected = f"its last revision is not {last}" if last else "it was written before (markers count)"
        text = f"{doing}: {expected} ({error.description}, error {error.err_code})"
        return errors.explained(errors.KeyWrongLastSequenceError, text, **vars(error))
    if error.err_code == NO_MSG_TTL:
        why = "msg_ttl needs a bucket with limit markers (limit_marker_ttl), and this one has none"
        return errors.explained(type(error), f"{doing}: {why} (error {NO_MSG_TTL})", **vars(error))
    return error
