"""Streams' and consumers' management: nats-py's `JetStreamManager` over our API.

Strategy
    The requests and the classes of the responses are nats-py's. Its manager makes each request through one method, which is
    `Api.request` here; a `timeout` is ignored, because the deadline in force governs, and the client's `request_timeout`. What
    it raises comes out as the same class with a text that says which stream or consumer it was about.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from nats.js import manager as nats_py

from trionats import api, errors
from trionats._jetstream.api import about, confirmed, sound, unreadable
from trionats._protocol import fields, subjects

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api

Info = TypeVar("Info", api.StreamInfo, api.ConsumerInfo)

#: What the server takes for a duplicate window that nobody chose, where the messages live longer.
DUPLICATE_WINDOW = 120.0


class _NatsPyReply:
    """A message of the kind that nats-py's manager reads; it assigns `data`."""

    def __init__(self, msg: Msg) -> None:
        self.data: bytes | None = msg.data
        # A message that was republished names two streams, and the last one is the one that was asked.
        self.headers: dict[str, str] = dict(msg.headers.items())
        if msg.status is not None:
            self.headers["Status"] = str(msg.status)
            self.headers["Description"] = msg.description

    @property
    def header(self) -> dict[str, str]:
        return self.headers


class _NatsPyConnection:
    """The connection that nats-py's manager expects: direct gets go through it."""

    def __init__(self, jetstream: Api[Messaging]) -> None:
        self._api = jetstream

    async def request(self, subject: str, payload: bytes, timeout: float) -> _NatsPyReply:  # noqa: ASYNC109 - its interface
        return _NatsPyReply(await self._api.ask(subject.removeprefix(f"{self._api.prefix}."), payload))


class _NatsPyManager(nats_py.JetStreamManager):
    """nats-py's manager over our API."""

    def __init__(self, jetstream: Api[Messaging]) -> None:
        super().__init__(_NatsPyConnection(jetstream), jetstream.prefix)  # type: ignore[arg-type]  # all it uses
        self._api = jetstream

    async def _api_request(self, req_subject: str, req: bytes = b"", timeout: float = 0) -> dict[str, Any]:  # noqa: ASYNC109 - its interface
        return await self._api.request(req_subject.removeprefix(f"{self._api.prefix}."), req)


class JetStreamManager:
    """Streams and consumers: create, read, change, delete. The names and arguments are nats-py's, without `timeout`.

    Each call is one request (a list: one per page), and each of them waits as `Client.request` does: at the most for a
    `request_timeout` that was chosen. A refusal by the server is an `APIError`, of which
    `NotFoundError` is the most frequent kind.
    """

    def __init__(self, jetstream: Api[Messaging]) -> None:
        self._api = jetstream
        self._manager = _NatsPyManager(jetstream)

    @property
    def prefix(self) -> str:
        """The subject prefix of the JetStream API, `$JS.API` unless a domain or another prefix was asked for."""
        return self._api.prefix

    async def api_request(self, subject: str, payload: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Ask the JetStream API something that has no method of its own.

        Args:
            subject: What to ask, without the prefix: "STREAM.INFO.ORDERS".
            payload: The request; None for an empty one.

        Returns:
            The response's fields, as the server sent them.

        Raises:
            trionats.errors.APIError: The server refused.
            trionats.errors.ServiceUnavailableError: Nobody responds at this prefix.
        """
        return await self._api.request(subject, payload)

    async def account_info(self) -> api.AccountInfo:
        """Read the account's limits and what it uses of them."""
        with about("account"):
            return sound("account", api.AccountInfo.from_response(await self._api.request("INFO")))

    async def find_stream_name_by_subject(self, subject: str) -> str:
        """Find the name of the stream that stores what is published to `subject`."""
        fields.check_argument("find_stream_name_by_subject", "subject", str, subject)
        what = f"stream for subject {subject!r}"
        with about(what):
            name = await self._manager.find_stream_name_by_subject(subject)
        if not isinstance(name, str):
            raise unreadable(what, f"its name must be text, not {type(name).__name__}")
        return name

    async def stream_info(self, name: str, subjects_filter: str | None = None) -> api.StreamInfo:
        """Read a stream's configuration and state.

        Args:
            name: The stream.
            subjects_filter: List the stored subjects that match this pattern, with their counts, in `state.subjects`.
        """
        what = _stream(name)
        fields.check_argument("stream_info", "subjects_filter", str | None, subjects_filter)
        with about(what):
            response = await self._api.request(f"STREAM.INFO.{name}", {"subjects_filter": subjects_filter or ""})
            return sound(what, api.StreamInfo.from_response(response))

    async def add_stream(self, config: api.StreamConfig | None = None, **params: object) -> api.StreamInfo:
        """Create a stream; an existing one of the same configuration is as good.

        Args:
            config: The configuration.
            params: Fields of `StreamConfig` that replace those of `config`.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, or the name is none.
            trionats.errors.APIError: The server refused.
        """
        return await self._configure("CREATE", fields.merged("add_stream", api.StreamConfig, config, params))

    async def update_stream(self, config: api.StreamConfig | None = None, **params: object) -> api.StreamInfo:
        """Change a stream's configuration; arguments and errors as for `add_stream`.

        The server tells its own defaults along with what was chosen, and refuses a `duplicate_window` above `max_age`.
        So where `max_age` is made shorter than the window in a configuration that was read, and the window is the
        server's default (two minutes, or the `max_age` there was), it is left to the server again. A window given by
        keyword is sent as it is, and where `max_age` is made longer the window stays as it is.
        """
        config = fields.merged("update_stream", api.StreamConfig, config, params)
        if 0 < (config.max_age or 0) < (config.duplicate_window or 0) and "duplicate_window" not in params:
            config = await self._without_default_window(config)
        return await self._configure("UPDATE", config)

    async def delete_stream(self, name: str) -> bool:
        """Delete a stream with all its messages and consumers."""
        what = _stream(name)
        with about(what):
            return confirmed(what, await self._manager.delete_stream(name))

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
        what = _stream(name)
        for given, hint, value in (("seq", int, seq), ("subject", str, subject), ("keep", int, keep)):
            fields.check_argument("purge_stream", given, hint | None, value)
        with about(what):
            return confirmed(what, await self._manager.purge_stream(name, seq, subject, keep))

    async def streams_info(self, offset: int = 0) -> list[api.StreamInfo]:
        """List all streams of the account, from the `offset`-th on."""
        fields.check_argument("streams_info", "offset", int, offset)
        return await self._pages("STREAM.LIST", "streams", offset, api.StreamInfo)

    async def streams_info_iterator(self, offset: int = 0) -> Iterable[api.StreamInfo]:
        """List all streams as `streams_info` does, under nats-py's other name."""
        return iter(await self.streams_info(offset))

    async def consumer_info(self, stream: str, consumer: str) -> api.ConsumerInfo:
        """Read a consumer's configuration and state."""
        what = _consumer(stream, consumer)
        with about(what):
            response = await self._api.request(f"CONSUMER.INFO.{stream}.{consumer}")
            return self._heard(sound(what, api.ConsumerInfo.from_response(response)))

    async def add_consumer(
        self, stream: str, config: api.ConsumerConfig | None = None, **params: object
    ) -> api.ConsumerInfo:
        """Create a consumer, or change the one of that name; without a name it gets a new one.

        A `filter_subject` stands in the request's subject, so that a permission can be granted for it alone
        (`$JS.API.CONSUMER.CREATE.<stream>.*.<filter>`); `filter_subjects`, even of one, do not, which is the server's
        rule.

        Args:
            stream: The stream it reads.
            config: The configuration.
            params: Fields of `ConsumerConfig` that replace those of `config`.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, or a name is none.
            trionats.errors.APIError: The server refused.
        """
        config = fields.merged("add_consumer", api.ConsumerConfig, config, params)
        if not (config.name or config.durable_name):
            config = replace(config, name=self._api.connection.new_token())
        name = config.name or config.durable_name or ""
        what = _consumer(stream, name)
        subject = subjects.consumer_creation(stream, name, config.filter_subject)
        request = {"stream_name": stream, "config": config.as_dict()}
        with about(what):
            response = await self._api.request(subject, request)
            return self._heard(sound(what, api.ConsumerInfo.from_response(response)))

    async def delete_consumer(self, stream: str, consumer: str) -> bool:
        """Delete a consumer. Messages of it that are held cannot be acknowledged any more."""
        what = _consumer(stream, consumer)
        with about(what), self._api.deliverers.ending(stream, consumer, "was deleted"):
            return confirmed(what, await self._manager.delete_consumer(stream, consumer))

    async def pause_consumer(self, stream: str, consumer: str, pause_until: str) -> api.ConsumerPause:
        """Stop a consumer's deliveries until a time, given as RFC 3339 text (server 2.11)."""
        what = _consumer(stream, consumer)
        fields.check_argument("pause_consumer", "pause_until", str, pause_until)
        with about(what):
            response = await self._api.request(f"CONSUMER.PAUSE.{stream}.{consumer}", {"pause_until": pause_until})
            return sound(what, api.ConsumerPause.from_response(response))

    async def resume_consumer(self, stream: str, consumer: str) -> api.ConsumerPause:
        """Let a paused consumer deliver again (server 2.11)."""
        what = _consumer(stream, consumer)
        with about(what):
            response = await self._api.request(f"CONSUMER.PAUSE.{stream}.{consumer}")
            return sound(what, api.ConsumerPause.from_response(response))

    async def reset_consumer(self, stream: str, consumer: str, seq: int | None = None) -> api.ConsumerReset:
        """Let a consumer start again behind its ack floor, or at the stream sequence `seq` (server 2.14)."""
        what = _consumer(stream, consumer)
        fields.check_argument("reset_consumer", "seq", int | None, seq)
        with about(what), self._api.deliverers.ending(stream, consumer, "was reset"):
            request = None if seq is None else {"seq": seq}
            response = await self._api.request(f"CONSUMER.RESET.{stream}.{consumer}", request)
            return sound(what, api.ConsumerReset.from_response(response))

    async def consumers_info(self, stream: str, offset: int | None = None) -> list[api.ConsumerInfo]:
        """List all consumers of a stream, from the `offset`-th on."""
        subjects.stream_name(stream)
        fields.check_argument("consumers_info", "offset", int | None, offset)
        return await self._pages(f"CONSUMER.LIST.{stream}", "consumers", offset or 0, api.ConsumerInfo)

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
        fields.check_argument("get_msg", "seq", int | None, seq)
        fields.check_argument("get_msg", "subject", str | None, subject)
        what = f"message {subject or seq!r} of {_stream(stream_name)}"
        with about(what):
            return sound(what, await self._manager.get_msg(stream_name, seq, subject, direct, next))

    async def get_last_msg(self, stream_name: str, subject: str, direct: bool | None = False) -> api.RawStreamMsg:
        """Read the newest message of a subject; `direct` as for `get_msg`."""
        return await self.get_msg(stream_name, subject=subject, direct=direct)

    async def delete_msg(self, stream_name: str, seq: int) -> bool:
        """Delete one stored message and overwrite its place."""
        fields.check_argument("delete_msg", "seq", int, seq)
        what = f"message {seq} of {_stream(stream_name)}"
        with about(what):
            return confirmed(what, await self._manager.delete_msg(stream_name, seq))

    # Inside.

    def _heard(self, info: api.ConsumerInfo) -> api.ConsumerInfo:
        self._api.deliverers.heard(info)
        return info

    async def _configure(self, verb: str, config: api.StreamConfig) -> api.StreamInfo:
        what = _stream(config.name or "")
        request = config.as_dict()
        with about(what):
            response = await self._api.request(f"STREAM.{verb}.{config.name}", request)
            return sound(what, api.StreamInfo.from_response(response))

    async def _without_default_window(self, config: api.StreamConfig) -> api.StreamConfig:
        """Leave the duplicate window to the server if what stands there is its own default.

        Nothing in the configuration says who chose it; the stream, as it still is, does.
        """
        try:
            now = (await self.stream_info(config.name or "")).config
        except errors.APIError:
            return config  # the update will say what is wrong, and knows better
        default = min(DUPLICATE_WINDOW, now.max_age or DUPLICATE_WINDOW)
        chosen = config.duplicate_window != now.duplicate_window or now.duplicate_window != default
        return config if chosen else replace(config, duplicate_window=0)

    async def _pages(self, subject: str, key: str, offset: int, kind: type[Info]) -> list[Info]:
        infos: dict[str | None, Info] = {}
        asked = offset
        while True:
            page = await self._api.request(subject, {"offset": asked})
            found, total = page.get(key) or [], page.get("total", 0)
            if not isinstance(found, list) or type(total) is not int:
                raise unreadable(subject, f"its {key} must be a list, and its total a whole number")
            before = len(infos)
            with about(subject):
                for entry in found:
                    info = sound(subject, kind.from_response(entry))
                    infos[info.config.name if isinstance(info, api.StreamInfo) else info.name] = info
            asked += len(found)
            # Nothing new: whatever the total says, this would go on for ever.
            if len(infos) == before or asked >= total:
                return list(infos.values())


def _stream(name: str) -> str:
    return f"stream {subjects.stream_name(name)!r}"


def _consumer(stream: str, consumer: str) -> str:
    return f"consumer {subjects.consumer_name(consumer)!r} of {_stream(stream)}"
