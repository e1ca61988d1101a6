"""Streams' and consumers' management, under the names of nats-py's `JetStreamManager` and with its arguments.

Strategy
    A call checks its arguments, makes one request (a list: one per page), and reads the response into a class of `trionats.api`. There is
    no `timeout`: the deadline in force governs, and the client's `request_timeout`. What is raised is of nats-py's classes, with a
    text that says which stream or consumer it was about.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from trio.lowlevel import checkpoint

from trionats import api, errors
from trionats._jetstream.api import about, api_error, confirmed, sound, unreadable
from trionats._jetstream.direct import read_one
from trionats._jetstream.management.consumer_requests import change, create, delete, pause, reset, resume, unpin
from trionats._protocol import fields, subjects
from trionats._protocol.jetstream import levels
from trionats._protocol.jetstream.buckets.configs import duplicate_window
from trionats._protocol.jetstream.listing import Pages
from trionats._protocol.jetstream.refusals import is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from nats.js import api as nats_api

    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api

T = TypeVar("T")

#: The server's number for: there is a stream of this name already, with another configuration.
STREAM_EXISTS = 10058
#: How the server says that a message to be deleted is not there: of a stream in memory by this number; of one in files by the
#: number of any failed deletion, and in its store's words.
_NO_SEQUENCE = 10043
_NO_SUCH_MESSAGE = frozenset({"no message found", "deleted message", "stream store EOF"})


class JetStreamManager:
    """Streams and consumers: create, read, change, delete. The names and arguments are nats-py's, without `timeout`.

    Each call is one request (a list: one per page), and each of them waits as `Client.request` does: at the most for a
    `request_timeout` that was chosen. A refusal by the server is an `APIError`, of which
    `NotFoundError` is the most frequent kind.
    """

    def __init__(self, jetstream: Api[Messaging]) -> None:
        self._api = jetstream

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
        """Read the account's limits and what it uses of them, by tiers where it has any, and the API level of the servers."""
        with about("account"):
            return sound("account", api.AccountInfo.from_response(await self._api.request("INFO")))

    async def find_stream_name_by_subject(self, subject: str) -> str:
        """Find the name of the stream that stores what is published to `subject`.

        Where `subject` has wildcards and several streams do, the first of them by name is given.

        Raises:
            trionats.errors.NotFoundError: There is none.
        """
        names = await self.stream_names(subject)
        if not names:
            raise api_error(errors.NotFoundError, f"stream for subject {subject!r}: not found", "not found", code=404)
        return names[0]

    async def stream_info(
        self, name: str, subjects_filter: str | None = None, deleted_details: bool = False
    ) -> api.StreamInfo:
        """Read a stream's configuration and state.

        Args:
            name: The stream.
            subjects_filter: List the stored subjects that match this pattern, with their counts, in `state.subjects`. The
                server gives 100,000 at once, and is asked until all of them have been read.
            deleted_details: List the sequences that were deleted between the first and the last, in `state.deleted`.

        Raises:
            trionats.errors.NotFoundError: There is no such stream.
        """
        what = _stream(name)
        fields.check_argument("stream_info", "deleted_details", bool, deleted_details)
        asked: dict[str, object] = {"deleted_details": True} if deleted_details else {}
        if subjects_filter is not None:
            asked["subjects_filter"] = subjects.pattern("stream_info: subjects_filter", subjects_filter)
        return await self._info(what, f"STREAM.INFO.{name}", asked)

    async def _info(self, what: str, subject: str, asked: Mapping[str, object]) -> api.StreamInfo:
        found: dict[str, int] = {}
        pages = Pages()
        while True:
            request = {**asked, "offset": pages.offset} if pages.offset else asked
            with about(what):
                response = await self._api.request(subject, request)
                # Of the page, not of the stream.
                total, _, _ = (response.pop(field, 0) for field in ("total", "offset", "limit"))
                if type(total) is not int:
                    raise unreadable(what, "its total must be a whole number")
                info = sound(what, api.StreamInfo.from_response(response))
            here = info.state.subjects
            found |= here or {}
            pages.take(list(here or ()), total)
            if pages.ended:
                if found:
                    info.state.subjects = found
                return info

    async def add_stream(self, config: nats_api.StreamConfig | None = None, **params: object) -> api.StreamInfo:
        """Create a stream; an existing one of the same configuration is as good.

        A mirror that says nothing of it gets `allow_msg_ttl` and `allow_rollup_hdrs`: without them it keeps messages that
        have expired in its origin, or were replaced there.

        What only a newer server can do (`allow_atomic` needs 2.12) is refused by the server, or, below 2.12, by this
        client before anything is sent, which asks for the API level once (`$JS.API.INFO`). Where the user may not ask that,
        the configuration that comes back is compared; the error then says that the stream is there without the field.

        Args:
            config: The configuration.
            params: Fields of `StreamConfig` that replace those of `config`.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, or the name is none.
            trionats.errors.APIError: The server refused, or is too old.
        """
        wanted = _wanted("add_stream", config, params)
        return await self._create(wanted, _additions(wanted, params))

    async def update_stream(self, config: nats_api.StreamConfig | None = None, **params: object) -> api.StreamInfo:
        """Change a stream's configuration; arguments and errors as for `add_stream`.

        A `config` is the whole configuration: what it leaves out becomes the server's default. Fields given by keyword alone
        (and the `name`) change just these: the rest is what the stream has, which is asked for first. Two who do that at the
        same time may undo what the other did.

        The server tells its own defaults along with what was chosen, and refuses a `duplicate_window` above `max_age`.
        So where `max_age` is made shorter than the window in a configuration that was read, and the window is the
        server's default (two minutes, or the `max_age` there was), it is left to the server again. A window given by
        keyword is sent as it is, and where `max_age` is made longer the window stays as it is.

        Raises:
            trionats.errors.NotFoundError: There is no such stream.
        """
        # Checked first: what is wrong is refused before anything is sent.
        wanted = _wanted("update_stream", config, params)
        _stream(wanted.name or "")
        now = None
        if config is None:
            now = (await self.stream_info(wanted.name or "")).config
            wanted = fields.merged("update_stream", api.StreamConfig, now, params)
        return await self._update(wanted, params, {}, now)

    async def delete_stream(self, name: str) -> bool:
        """Delete a stream with all its messages and consumers."""
        what = _stream(name)
        with about(what):
            response = await self._api.request(f"STREAM.DELETE.{name}")
            return confirmed(what, response["success"])

    async def purge_stream(
        self, name: str, seq: int | None = None, subject: str | None = None, keep: int | None = None
    ) -> bool:
        """Delete messages of a stream; `Stream.purge` says how many they were.

        Args:
            name: The stream.
            seq: Only what is below this sequence, which is 1 at the least; below that there is nothing, and nothing is sent. Not
                together with `keep`.
            subject: Only what matches this pattern.
            keep: All but this many of the newest.

        Raises:
            ValueError: Both `seq` and `keep` were given, or a number that none can be; nothing was sent.
            trionats.errors.APIError: The server refused.
        """
        await purged(self._api, "purge_stream", name, seq, subject, keep)
        return True

    async def stream_names(self, subject: str | None = None) -> list[str]:
        """List the names of all streams of the account, sorted, or of those that store what matches `subject`."""
        asked = {} if subject is None else {"subject": subjects.pattern("stream_names: subject", subject)}
        return await self._pages("STREAM.NAMES", "streams", _name("STREAM.NAMES"), str, asked=asked)

    async def streams_info(self, offset: int = 0, subject: str | None = None) -> list[api.StreamInfo]:
        """List all streams of the account, by name.

        A stream whose leader does not respond is not among them, but its name is among the `stream_names`.

        Args:
            offset: How many to leave out.
            subject: Only those that store what matches this pattern.
        """
        fields.check_argument("streams_info", "offset", int, offset)
        asked = {} if subject is None else {"subject": subjects.pattern("streams_info: subject", subject)}

        def read(entry: dict[str, Any]) -> api.StreamInfo:
            return sound("STREAM.LIST", api.StreamInfo.from_response(entry))

        return await self._pages("STREAM.LIST", "streams", read, lambda info: info.config.name, offset, asked)

    async def streams_info_iterator(self, offset: int = 0) -> Iterable[api.StreamInfo]:
        """List all streams as `streams_info` does, under nats-py's other name."""
        return iter(await self.streams_info(offset))

    async def consumer_info(self, stream: str, consumer: str) -> api.ConsumerInfo:
        """Read a consumer's configuration and state."""
        what = _consumer(stream, consumer)
        with about(what):
            response = await self._api.request(f"CONSUMER.INFO.{stream}.{consumer}")
            info = sound(what, api.ConsumerInfo.from_response(response))
        self._api.deliverers.heard(info)
        return info

    async def add_consumer(
        self, stream: str, config: nats_api.ConsumerConfig | None = None, **params: object
    ) -> api.ConsumerInfo:
        """Create a consumer, or change the one of that name; without a name it gets a new one.

        One filter, also one in a list, stands in the request's subject, so that a permission can be granted for it alone
        (`$JS.API.CONSUMER.CREATE.<stream>.*.<filter>`); several do not, which is the server's rule. In the configuration
        that comes back, one filter is a `filter_subject`.

        What only a newer server can do (priority groups and `pause_until` need 2.11, several filters 2.10) is an error: such a
        server leaves out what it does not know.

        Args:
            stream: The stream it reads.
            config: The configuration.
            params: Fields of `ConsumerConfig` that replace those of `config`.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, a name is none, or fields exclude each other.
            trionats.errors.APIError: The server refused, or is too old.
        """
        return await create(self._api, "add_consumer", stream, config, params)

    async def update_consumer(
        self, stream: str, config: nats_api.ConsumerConfig | None = None, **params: object
    ) -> api.ConsumerInfo:
        """Change a consumer that exists.

        A `config` is the whole configuration: what it leaves out becomes the server's default. Fields given by keyword alone
        (and the `name`) change just these: the rest is what the consumer has, which is asked for first. Two who do that at
        the same time may undo what the other did. Messages of an old filter that are not acknowledged come again all the
        same.

        Args:
            stream: The stream it reads.
            config: The configuration.
            params: Fields of `ConsumerConfig` that replace those of `config`, or of what the consumer has.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, a name is none, or fields exclude each other.
            trionats.errors.APIError: The server refused: there is no such consumer (error 10149), or the field cannot be
                changed; or it is too old.
        """
        return await change(self._api, stream, config, params)

    async def delete_consumer(self, stream: str, consumer: str) -> bool:
        """Delete a consumer. Messages of it that are held cannot be acknowledged any more."""
        what = _consumer(stream, consumer)
        with about(what):
            return confirmed(what, await delete(self._api, stream, consumer))

    async def pause_consumer(self, stream: str, consumer: str, pause_until: str | datetime) -> api.ConsumerPause:
        """Stop a consumer's deliveries until a time (server 2.11). Pulls keep their heartbeats and wait.

        Args:
            stream: The stream it reads.
            consumer: Its name.
            pause_until: A datetime with a time zone, or RFC 3339 text. A time that has passed lets it deliver.

        Raises:
            TypeError: `pause_until` is something else.
            ValueError: It has no time zone, or is no time.
            trionats.errors.APIError: The server refused, or is too old.
        """
        return await pause(self._api, stream, consumer, pause_until)

    async def resume_consumer(self, stream: str, consumer: str) -> api.ConsumerPause:
        """Let a paused consumer deliver again (server 2.11)."""
        return await resume(self._api, stream, consumer)

    async def reset_consumer(self, stream: str, consumer: str, seq: int | None = None) -> api.ConsumerReset:
        """Let a consumer begin again: behind its ack floor, or at a sequence of the stream (ADR-60, server 2.14).

        What it delivered before and was not acknowledged comes again. Messages that this context holds of it cannot be
        acknowledged any more: to the server, an acknowledgement from before would settle another message.

        Args:
            stream: The stream it reads.
            consumer: Its name.
            seq: Where to begin. Where the consumer itself begins at a sequence, not before that (error 10204).

        Returns:
            Its state, and the sequence that it begins at.

        Raises:
            ValueError: `seq` is none.
            trionats.errors.NotFoundError: There is no such consumer. The server itself does not answer then, so it is asked for
                the consumer first, if the user may do that.
            trionats.errors.APIError: `seq` is beyond the end of the stream (which the server would take), or the server refused,
                or is too old.
        """
        return await reset(self._api, stream, consumer, seq)

    async def unpin_consumer(self, stream: str, consumer: str, group: str) -> None:
        """Take the pin from the client of a priority group that has it; the next one that pulls gets it (server 2.11).

        Args:
            stream: The stream it reads.
            consumer: Its name.
            group: The group.

        Raises:
            ValueError: The group's name is none.
            trionats.errors.APIError: The server refused: the consumer has no such group (error 10160); or it is too old.
        """
        await unpin(self._api, stream, consumer, group)

    async def consumer_names(self, stream: str) -> list[str]:
        """List the names of all consumers of a stream, sorted."""
        subject = f"CONSUMER.NAMES.{subjects.stream_name(stream)}"
        return await self._pages(subject, "consumers", _name(subject), str)

    async def consumers_info(self, stream: str, offset: int | None = None) -> list[api.ConsumerInfo]:
        """List all consumers of a stream, from the `offset`-th on."""
        subjects.stream_name(stream)
        fields.check_argument("consumers_info", "offset", int | None, offset)
        subject = f"CONSUMER.LIST.{stream}"

        def read(entry: dict[str, Any]) -> api.ConsumerInfo:
            return sound(subject, api.ConsumerInfo.from_response(entry))

        return await self._pages(subject, "consumers", read, lambda info: info.name, offset or 0)

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
        what = f"message {subject or seq!r} of {_stream(stream_name)}"
        fields.check_argument("get_msg", "seq", int | None, seq)
        fields.check_argument("get_msg", "subject", str | None, subject)
        fields.check_argument("get_msg", "direct", bool | None, direct)
        fields.check_argument("get_msg", "next", bool | None, next)
        if seq is not None and seq < 0:
            raise ValueError(f"get_msg: seq is {seq}: sequences begin at 1")
        if next:
            asked = {"seq": seq, "next_by_subj": subject}
        elif subject:
            asked = {"last_by_subj": subject}
        else:
            asked = {"seq": seq}
        asked = {name: value for name, value in asked.items() if value}
        if not asked:
            raise ValueError("get_msg: seq or subject has to say which message")
        stored = await read_one(self._api, stream_name, asked, what, direct=bool(direct), chosen=True)
        own = dict(stored.headers.items())
        return api.RawStreamMsg(
            subject=stored.subject,
            seq=stored.seq,
            data=stored.data or None,
            headers=own or None,
            stream=stored.stream,
            time=stored.time,
        )

    async def get_last_msg(self, stream_name: str, subject: str, direct: bool | None = False) -> api.RawStreamMsg:
        """Read the newest message of a subject; `direct` as for `get_msg`."""
        return await self.get_msg(stream_name, subject=subject, direct=direct)

    async def delete_msg(self, stream_name: str, seq: int, *, erase: bool = True) -> bool:
        """Delete one stored message.

        Args:
            stream_name: The stream.
            seq: The message's sequence.
            erase: Overwrite its place with random bytes, which is slower; as nats-py does. `Stream.delete_msg` does not,
                unless it is asked to.

        Raises:
            nats.js.errors.NotFoundError: There is no such message, or no such stream.
            trionats.errors.APIError: The server refused.
        """
        fields.check_argument("delete_msg", "seq", int, seq)
        fields.check_argument("delete_msg", "erase", bool, erase)
        if seq < 1:
            raise ValueError(f"delete_msg: seq is {seq}: sequences begin at 1")
        what = f"message {seq} of {_stream(stream_name)}"
        asked: dict[str, object] = {"seq": seq} if erase else {"seq": seq, "no_erase": True}
        with about(what):
            try:
                response = await self._api.request(f"STREAM.MSG.DELETE.{stream_name}", asked)
            except errors.APIError as error:
                if error.err_code == _NO_SEQUENCE or error.description in _NO_SUCH_MESSAGE:
                    raise errors.explained(errors.NotFoundError, str(error), **vars(error)) from None
                raise
            return confirmed(what, response.get("success"))

    # Inside.

    async def _ensure_stream(
        self, config: nats_api.StreamConfig | None, params: Mapping[str, object]
    ) -> api.StreamInfo:
        """Let there be a stream of this configuration: change the one that is there, or else create it."""
        wanted = _wanted("create_or_update_stream", config, params)
        _stream(wanted.name or "")
        more = _additions(wanted, params)
        try:
            return await self._update(wanted, params, more)
        except errors.NotFoundError as error:
            if not is_missing(error):
                raise
        try:
            return await self._create(wanted, more)
        except errors.APIError as error:
            if error.err_code != STREAM_EXISTS:
                raise
        return await self._update(wanted, params, more)  # somebody has created it meanwhile

    async def _create(self, config: api.StreamConfig, more: Mapping[str, object]) -> api.StreamInfo:
        try:
            return await self._configure("CREATE", config, more)
        except errors.APIError as error:
            # One that was made without them is as good.
            if error.err_code != STREAM_EXISTS or not more:
                raise
        return await self._configure("CREATE", config, {})

    async def _update(
        self,
        config: api.StreamConfig,
        given: Mapping[str, object],
        more: Mapping[str, object],
        now: api.StreamConfig | None = None,
    ) -> api.StreamInfo:
        if 0 < (config.max_age or 0) < (config.duplicate_window or 0) and "duplicate_window" not in given:
            config = await self._without_default_window(config, now)
        return await self._configure("UPDATE", config, more)

    async def _configure(self, verb: str, config: api.StreamConfig, more: Mapping[str, object]) -> api.StreamInfo:
        """Tell the server a configuration, and `more`, which is as good left out by one that does not know it."""
        name = config.name or ""
        what = _stream(name)
        request = config.as_dict()
        needs = levels.of_stream(request)
        with about(what):
            response = await self._api.configure(what, f"STREAM.{verb}.{name}", {**request, **more}, needs)
            return sound(what, api.StreamInfo.from_response(response))

    async def _without_default_window(self, config: api.StreamConfig, now: api.StreamConfig | None) -> api.StreamConfig:
        """Leave the duplicate window to the server if what stands there is its own default.

        Nothing in the configuration says who chose it; the stream, as it still is, does.
        """
        try:
            now = now or (await self.stream_info(config.name or "")).config
        except errors.APIError:
            return config  # the update will say what is wrong, and knows better
        default = duplicate_window(now.max_age or 0)
        chosen = config.duplicate_window != now.duplicate_window or now.duplicate_window != default
        return config if chosen else replace(config, duplicate_window=0)

    async def _pages(
        self,
        subject: str,
        key: str,
        read: Callable[[Any], T],
        named: Callable[[T], str | None],
        offset: int = 0,
        asked: Mapping[str, object] | None = None,
    ) -> list[T]:
        """Read a list whole.

        Args:
            subject: What is asked.
            key: Under which name a page has its entries.
            read: Makes something of an entry.
            named: Says what it is called.
            offset: How many are left out.
            asked: Further fields of the request.
        """
        found: dict[str, T] = {}
        pages = Pages(offset)
        while not pages.ended:
            page = await self._api.request(subject, {**(asked or {}), "offset": pages.offset})
            entries, missing, total = page.get(key) or [], page.get("missing") or [], page.get("total", 0)
            if not isinstance(entries, list) or not isinstance(missing, list) or type(total) is not int:
                raise unreadable(subject, f"its {key} must be a list, and its total a whole number")
            with about(subject):
                here = {named(item) or "": item for item in map(read, entries)}
            found |= here
            # Those that did not respond have their places, too.
            pages.take(sorted([*here, *map(str, missing)]) if missing else list(here), total)
        return list(found.values())


async def purged(
    jetstream: Api[Messaging], call: str, name: str, seq: int | None, subject: str | None, keep: int | None
) -> int:
    """Delete messages of a stream.

    Args:
        jetstream: What is asked.
        call: The call that was made, for the texts of exceptions.
        name: The stream.
        seq: Only what is below this sequence; None for no limit.
        subject: Only what matches this pattern; None for all.
        keep: All but this many; None for none.

    Returns:
        How many they were.

    Raises:
        ValueError: Both `seq` and `keep` were given, or a number that none can be; nothing was sent.
        trionats.errors.APIError: The server refused.
    """
    what = _stream(name)
    # Below sequence 0 there is nothing; the server takes 0 for "no limit", and purges all.
    for given, value, least in (("seq", seq, 1), ("keep", keep, 0)):
        fields.check_argument(call, given, int | None, value)
        if value is not None and value < least:
            raise ValueError(f"{call}: {given} is {value}: it is at least {least}")
    if seq is not None and keep is not None:
        raise ValueError(f"{call}: either seq ({seq}) or keep ({keep}), not both")
    filtered = None if subject is None else subjects.pattern(f"{call}: subject", subject)
    if seq == 1:
        # Below it there is nothing, and servers up to 2.14.0 would purge everything.
        jetstream.connection.pace.run.check()
        await checkpoint()
        return 0
    asked = {"seq": seq, "keep": keep, "filter": filtered}
    request = {field: value for field, value in asked.items() if value is not None}
    with about(what):
        response = await jetstream.request(f"STREAM.PURGE.{name}", request)
        confirmed(what, response["success"])
        count = response.get("purged")
        if type(count) is not int:
            raise unreadable(what, "the number of purged messages must be a whole number")
        return count


def _wanted(call: str, config: nats_api.StreamConfig | None, params: Mapping[str, object]) -> api.StreamConfig:
    """Make the configuration that a call is given, and check it with its subjects."""
    wanted = fields.merged(call, api.StreamConfig, config, params)
    for subject in wanted.subjects or ():
        subjects.pattern(f"{call}: subjects", subject)
    return wanted


def _additions(config: api.StreamConfig, given: Mapping[str, object]) -> dict[str, object]:
    """Let a mirror forget what its origin forgets, unless that was said by keyword, or is not allowed together with the rest."""
    if config.mirror is None:
        return {}
    more: dict[str, object] = {}
    if config.allow_msg_ttl is None:
        more["allow_msg_ttl"] = True
    if not (config.allow_rollup_hdrs or config.deny_purge or "allow_rollup_hdrs" in given):
        more["allow_rollup_hdrs"] = True
    return more


def _name(subject: str) -> Callable[[object], str]:
    def read(entry: object) -> str:
        if not isinstance(entry, str):
            raise unreadable(subject, f"a name must be text, not {type(entry).__name__}")
        return entry

    return read


def _stream(name: str) -> str:
    return f"stream {subjects.stream_name(name)!r}"


def _consumer(stream: str, consumer: str) -> str:
    return f"consumer {subjects.consumer_name(consumer)!r} of {_stream(stream)}"
