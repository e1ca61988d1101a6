"""Streams' and consumers' management: nats-py's `JetStreamManager` on our client, and the JetStream API's own errors.

Strategy
    The requests and the classes of the answers are nats-py's. Its manager expects a connection of its own kind, which
    `_ManagedConnection` is; what that connection does with a `timeout` is to ignore it, because here the deadline in force
    governs, and the client's `request_timeout`. Its exceptions come out as the same classes with a
    text that says which stream or consumer it was about.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from nats.js.manager import JetStreamManager

from trionats import api, errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from trionats._client import Client
    from trionats._message import Msg

_KINDS: dict[int, type[errors.APIError]] = {
    400: errors.BadRequestError,
    404: errors.NotFoundError,
    500: errors.ServerError,
    503: errors.ServiceUnavailableError,
}


def refusal(what: str, error: Mapping[str, Any]) -> errors.APIError:
    """Make the exception for the `error` object of a JetStream answer.

    Args:
        what: What was asked, for the text: "stream 'ORDERS'".
        error: The object as the server sent it.

    Returns:
        An `APIError`, or the subclass that nats-py has for its code.
    """
    code, err_code, description = error.get("code"), error.get("err_code"), error.get("description")
    kind = _KINDS.get(code, errors.APIError) if isinstance(code, int) else errors.APIError
    text = f"{what}: {description or 'refused'} (code {code}, error {err_code})"
    return errors.explained(kind, text, code=code, err_code=err_code, description=description, stream=None, seq=None)


def decode(what: str, data: bytes) -> dict[str, Any]:
    """Read a JetStream answer.

    Args:
        what: What was asked, for the text of an exception.
        data: The payload of the answer.

    Returns:
        The answer's fields.

    Raises:
        trionats.errors.APIError: The answer is a refusal, or is no JetStream answer at all.
    """
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise errors.explained(
            errors.APIError,
            f"{what}: what came back is no JetStream answer",
            code=None,
            err_code=None,
            description="not a JetStream answer",
            stream=None,
            seq=None,
        )
    error = answer.get("error")
    if isinstance(error, dict):
        raise refusal(what, error)
    return answer


@contextmanager
def _about(what: str) -> Iterator[None]:
    """Make nats-py's exceptions say what they were about."""
    try:
        yield
    except errors.APIError as error:
        text = f"{what}: {error.description or 'not found'}"
        if error.err_code is not None:
            text += f" (code {error.code}, error {error.err_code})"
        raise errors.explained(type(error), text, **vars(error)) from None


class _Version(NamedTuple):
    major: int
    minor: int


class _Answer:
    """A message of the kind that nats-py's manager reads; it assigns `data`."""

    def __init__(self, msg: Msg) -> None:
        self.data: bytes | None = msg.data
        self.headers: dict[str, str] = dict(msg.headers)
        if msg.status is not None:
            self.headers["Status"] = str(msg.status)
            self.headers["Description"] = msg.description

    @property
    def header(self) -> dict[str, str]:
        return self.headers


class _ManagedConnection:
    """The connection that nats-py's manager expects."""

    #: The manager asks whether the server knows named consumers (2.9); every server that we speak to does.
    connected_server_version = _Version(2, 15)

    def __init__(self, nc: Client, prefix: str) -> None:
        self._nc = nc
        self._prefix = prefix

    async def request(self, subject: str, payload: bytes = b"", timeout: float = 0) -> _Answer:  # noqa: ASYNC109 - its interface
        try:
            msg = await self._nc.request(self._publishable(subject), payload)
        except errors.NoRespondersError:
            raise unavailable(subject, self._prefix) from None
        if msg.data and not subject.startswith(f"{self._prefix}.DIRECT."):
            decode(subject, msg.data)
        return _Answer(msg)

    def _publishable(self, subject: str) -> str:
        """Leave out the filter that the manager repeats in the subject if it has wildcards, which are not published to.

        The server reads it from the configuration.
        """
        head = f"{self._prefix}.CONSUMER.CREATE."
        if not subject.startswith(head) or not {"*", ">"}.intersection(subject.split(".")):
            return subject
        return head + ".".join(subject.removeprefix(head).split(".")[:2])


def unavailable(subject: str, prefix: str) -> errors.ServiceUnavailableError:
    """Make the exception for a JetStream API that nobody answers."""
    description = f"nobody answers {subject!r}: JetStream is not enabled, has no leader, or is not at {prefix!r}"
    return errors.explained(
        errors.ServiceUnavailableError,
        description,
        code=503,
        err_code=None,
        description=description,
        stream=None,
        seq=None,
    )


class Management:
    """Streams and consumers: create, read, change, delete. The names and arguments are nats-py's, without `timeout`.

    Each call is one request (a list: one per page), and each of them waits as `Client.request` does: at the most for a
    `request_timeout` that was chosen. A refusal by the server is an `APIError`, of which
    `NotFoundError` is the most frequent kind.
    """

    def __init__(self, nc: Client, prefix: str = api.DEFAULT_PREFIX) -> None:
        self._nc = nc
        self._prefix = prefix
        self._manager = JetStreamManager(_ManagedConnection(nc, prefix), prefix)  # type: ignore[arg-type]  # all it uses

    @property
    def nc(self) -> Client:
        """The client that this speaks through."""
        return self._nc

    @property
    def prefix(self) -> str:
        """The subject prefix of the JetStream API, `$JS.API` unless a domain or another prefix was asked for."""
        return self._prefix

    async def api_request(self, subject: str, payload: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Ask the JetStream API something that has no method of its own.

        Args:
            subject: What to ask, without the prefix: "STREAM.INFO.ORDERS".
            payload: The request; None for an empty one.

        Returns:
            The answer's fields, as the server sent them.

        Raises:
            trionats.errors.APIError: The server refused.
            trionats.errors.ServiceUnavailableError: Nobody answers at this prefix.
        """
        full = f"{self._prefix}.{subject}"
        try:
            msg = await self._nc.request(full, b"" if payload is None else json.dumps(payload).encode())
        except errors.NoRespondersError:
            raise unavailable(full, self._prefix) from None
        return decode(subject, msg.data)

    async def account_info(self) -> api.AccountInfo:
        """Read the account's limits and what it uses of them."""
        with _about("account"):
            return await self._manager.account_info()

    async def find_stream_name_by_subject(self, subject: str) -> str:
        """Find the name of the stream that stores what is published to `subject`."""
        with _about(f"stream for subject {subject!r}"):
            return await self._manager.find_stream_name_by_subject(subject)

    async def stream_info(self, name: str, subjects_filter: str | None = None) -> api.StreamInfo:
        """Read a stream's configuration and state.

        Args:
            name: The stream.
            subjects_filter: List the stored subjects that match this pattern, with their counts, in `state.subjects`.
        """
        with _about(f"stream {name!r}"):
            return await self._manager.stream_info(name, subjects_filter)

    async def add_stream(self, config: api.StreamConfig | None = None, **params: object) -> api.StreamInfo:
        """Create a stream; an existing one of the same configuration is as good.

        Args:
            config: The configuration.
            params: Fields of `StreamConfig` that replace those of `config`.
        """
        with _about(f"stream {_name(config, params)!r}"):
            return await self._manager.add_stream(config, **params)

    async def update_stream(self, config: api.StreamConfig | None = None, **params: object) -> api.StreamInfo:
        """Change a stream's configuration; arguments as for `add_stream`."""
        with _about(f"stream {_name(config, params)!r}"):
            return await self._manager.update_stream(config, **params)

    async def delete_stream(self, name: str) -> bool:
        """Delete a stream with all its messages and consumers."""
        with _about(f"stream {name!r}"):
            return await self._manager.delete_stream(name)

    async def purge_stream(
        self, name: str, seq: int | None = None, subject: str | None = None, keep: int | None = None
    ) -> bool:
        """Delete messages of a stream.

        Args:
            name: The stream.
            seq: Only what is below this sequence.
            subject: Only what matches this pattern.
            keep: All but this many of the newest.
        """
        with _about(f"stream {name!r}"):
            return await self._manager.purge_stream(name, seq, subject, keep)

    async def streams_info(self, offset: int = 0) -> list[api.StreamInfo]:
        """List all streams of the account, from the `offset`-th on."""
        return [api.StreamInfo.from_response(entry) for entry in await self._pages("STREAM.LIST", "streams", offset)]

    async def streams_info_iterator(self, offset: int = 0) -> Iterable[api.StreamInfo]:
        """List all streams as `streams_info` does, under nats-py's other name."""
        return iter(await self.streams_info(offset))

    async def consumer_info(self, stream: str, consumer: str) -> api.ConsumerInfo:
        """Read a consumer's configuration and state."""
        with _about(f"consumer {consumer!r} of stream {stream!r}"):
            info: api.ConsumerInfo = await self._manager.consumer_info(stream, consumer)
            return info

    async def add_consumer(
        self, stream: str, config: api.ConsumerConfig | None = None, **params: object
    ) -> api.ConsumerInfo:
        """Create a consumer, or change the one of that name.

        Args:
            stream: The stream it reads.
            config: The configuration.
            params: Fields of `ConsumerConfig` that replace those of `config`.
        """
        name = params.get("name") or params.get("durable_name") or (config and (config.name or config.durable_name))
        with _about(f"consumer {name or ''!r} of stream {stream!r}"):
            config = (config or api.ConsumerConfig()).evolve(**params)
            return await self._manager.add_consumer(stream, config)

    async def delete_consumer(self, stream: str, consumer: str) -> bool:
        """Delete a consumer."""
        with _about(f"consumer {consumer!r} of stream {stream!r}"):
            return await self._manager.delete_consumer(stream, consumer)

    async def pause_consumer(self, stream: str, consumer: str, pause_until: str) -> api.ConsumerPause:
        """Stop a consumer's deliveries until a time, given as RFC 3339 text (server 2.11)."""
        with _about(f"consumer {consumer!r} of stream {stream!r}"):
            return await self._manager.pause_consumer(stream, consumer, pause_until)

    async def resume_consumer(self, stream: str, consumer: str) -> api.ConsumerPause:
        """Let a paused consumer deliver again (server 2.11)."""
        with _about(f"consumer {consumer!r} of stream {stream!r}"):
            return await self._manager.resume_consumer(stream, consumer)

    async def reset_consumer(self, stream: str, consumer: str, seq: int | None = None) -> api.ConsumerReset:
        """Let a consumer start again behind its ack floor, or at the stream sequence `seq` (server 2.14)."""
        with _about(f"consumer {consumer!r} of stream {stream!r}"):
            return await self._manager.reset_consumer(stream, consumer, seq)

    async def consumers_info(self, stream: str, offset: int | None = None) -> list[api.ConsumerInfo]:
        """List all consumers of a stream, from the `offset`-th on."""
        entries = await self._pages(f"CONSUMER.LIST.{stream}", "consumers", offset or 0)
        return [api.ConsumerInfo.from_response(entry) for entry in entries]

    async def get_msg(
        self,
        stream_name: str,
        seq: int | None = None,
        subject: str | None = None,
        direct: bool | None = False,
        next: bool | None = False,  # noqa: A002 - nats-py's name
    ) -> api.RawStreamMsg:
        """Read one stored message.

        Args:
            stream_name: The stream.
            seq: The message's sequence; with `next`, the sequence to search from.
            subject: The newest message of this subject; with `next`, the first that matches it.
            direct: Ask any replica instead of the leader. Faster, but may not see the newest write.
            next: Search forwards from `seq`.
        """
        with _about(f"message {subject or seq!r} of stream {stream_name!r}"):
            return await self._manager.get_msg(stream_name, seq, subject, direct, next)

    async def get_last_msg(self, stream_name: str, subject: str, direct: bool | None = False) -> api.RawStreamMsg:
        """Read the newest message of a subject; `direct` as for `get_msg`."""
        return await self.get_msg(stream_name, subject=subject, direct=direct)

    async def delete_msg(self, stream_name: str, seq: int) -> bool:
        """Delete one stored message and overwrite its place."""
        with _about(f"message {seq} of stream {stream_name!r}"):
            return await self._manager.delete_msg(stream_name, seq)

    async def _pages(self, subject: str, key: str, offset: int) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        while True:
            page = await self.api_request(subject, {"offset": offset + len(entries)})
            found = page.get(key) or []
            entries += found
            if not found or offset + len(entries) >= page.get("total", 0):
                return entries


def _name(config: api.StreamConfig | None, params: Mapping[str, object]) -> object:
    return params.get("name", config and config.name)
