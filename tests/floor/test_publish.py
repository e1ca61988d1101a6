"""Acknowledged publish against a scripted server: which answer counts, how long it is waited for, and what is left of it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.fakes import FakeServer, Frame
from trionats import JetStream, errors, events, open_client, open_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trionats import Events

HUB = {"stream": "S", "seq": 7, "domain": "hub"}
LEAF = {"stream": "S", "seq": 1, "domain": "leaf"}
FULL = {"stream": "S", "error": {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}}
UNDER_WAY = {"stream": "S", "error": {"code": 409, "err_code": 10158, "description": "under way"}}
CONFLICT = {"stream": "S", "error": {"code": 400, "err_code": 10071, "description": "wrong last sequence: 1"}}


class Scripted:
    """Answers each publish with a script: what, and how many seconds after it came."""

    def __init__(self, server: FakeServer, nursery: trio.Nursery) -> None:
        self._server, self._nursery = server, nursery
        self.script: list[tuple[float, dict[str, Any]]] = []

    def __call__(self, frame: Frame) -> None:
        for delay, answer in self.script:
            self._nursery.start_soon(self._later, delay, frame.reply, answer)

    async def _later(self, delay: float, reply: str, answer: dict[str, Any]) -> None:
        await trio.sleep(delay)
        self._server.publish(reply, json.dumps(answer).encode())


@asynccontextmanager
async def publishing(domain: str | None = "hub") -> AsyncIterator[tuple[JetStream, Scripted, FakeServer, Events]]:
    server = FakeServer()
    server.on("$JS.hub.API.INFO", lambda _: {"domain": "hub"})
    async with (
        trio.open_nursery() as nursery,
        open_client(nursery, dial=server.dial) as nc,
        open_events(nursery, nc) as told,
    ):
        scripted = Scripted(server, nursery)
        server.on("s.a", scripted)
        yield nc.jetstream(domain=domain), scripted, server, told
        assert nc.statistics().pending_requests == 0
    server.check()


def elsewhere(told: Events) -> list[events.StoredElsewhere]:
    found: list[events.StoredElsewhere] = []
    while True:
        try:
            event = told.receive_nowait()
        except trio.WouldBlock:
            return found
        if isinstance(event, events.StoredElsewhere):
            found.append(event)


STORED_ELSEWHERE = events.StoredElsewhere("s.a", "S", "leaf", "hub")


@pytest.mark.parametrize(
    ("script", "seconds", "told"),
    [
        ([(0, HUB)], 0, 0),
        ([(0, FULL), (0.4, HUB)], 0.4, 0),
        ([(0, LEAF), (2, HUB)], 2, 1),
        ([(0, LEAF), (0.1, LEAF), (2, HUB)], 2, 1),
        ([(0, LEAF), (1, FULL), (1.4, HUB)], 1.4, 1),
    ],
)
async def test_our_own_acknowledgement_is_waited_for(
    autojump_clock: trio.testing.MockClock, script: list[tuple[float, dict[str, Any]]], seconds: float, told: int
) -> None:
    async with publishing() as (js, scripted, _, heard):
        scripted.script = script
        start = trio.current_time()
        ack = await js.publish("s.a", b"")
        assert (ack.seq, ack.domain) == (7, "hub")
        assert trio.current_time() - start == pytest.approx(seconds)
        assert elsewhere(heard) == [STORED_ELSEWHERE] * told


@pytest.mark.parametrize(
    ("script", "seconds", "text"),
    [
        ([(0, FULL)], 0.5, r"^publish to 's\.a': maximum bytes exceeded \(code 503, error 10077\)$"),
        ([(0, FULL), (0.1, FULL)], 0.5, r"^publish to 's\.a': maximum bytes"),
        (
            [(0, LEAF), (1, FULL)],
            1.5,
            r"^publish to 's\.a' \(stored in domain 'leaf', where .*\): maximum bytes exceeded",
        ),
        ([(0, LEAF)], 3, r"^publish to 's\.a': no stream in domain 'hub' has answered, but one in 'leaf'$"),
    ],
)
async def test_what_was_refused_or_only_stored_elsewhere_is_an_error(
    autojump_clock: trio.testing.MockClock, script: list[tuple[float, dict[str, Any]]], seconds: float, text: str
) -> None:
    async with publishing() as (js, scripted, _, _heard):
        scripted.script = script
        start = trio.current_time()
        with pytest.raises((errors.APIError, errors.NoStreamResponseError), match=text):
            await js.publish("s.a", b"")
        assert trio.current_time() - start == pytest.approx(seconds)


async def test_a_refusal_is_waited_behind_according_to_the_distance(autojump_clock: trio.testing.MockClock) -> None:
    async with publishing() as (js, scripted, _, _heard):
        await js.api_request("INFO")
        scripted.script = [(0, FULL)]
        start = trio.current_time()
        with pytest.raises(errors.APIError):
            await js.publish("s.a", b"")
        assert trio.current_time() - start == pytest.approx(0.1)


async def test_without_a_domain_the_first_answer_counts(autojump_clock: trio.testing.MockClock) -> None:
    async with publishing(None) as (js, scripted, _, heard):
        scripted.script = [(0, LEAF), (1, HUB)]
        assert (await js.publish("s.a", b"")).domain == "leaf"
        scripted.script = [(0, FULL), (1, HUB)]
        start = trio.current_time()
        with pytest.raises(errors.APIError):
            await js.publish("s.a", b"")
        assert trio.current_time() == start
        assert elsewhere(heard) == []


async def test_what_another_domain_says_later_is_told_too_and_not_kept_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with publishing() as (js, scripted, server, heard):
        scripted.script = [(0, HUB), (0.2, LEAF)]
        await js.publish("s.a", b"")
        assert elsewhere(heard) == []
        await trio.sleep(1)
        assert elsewhere(heard) == [STORED_ELSEWHERE]
        scripted.script = [(0, HUB)]
        first = len(server.sent("PUB", "s.a"))
        for _ in range(100):
            await js.publish("s.a", b"")
        for frame in server.sent("PUB", "s.a")[first:]:
            server.publish(frame.reply, json.dumps(LEAF).encode())
        await trio.sleep(1)
        assert 64 <= len(elsewhere(heard)) <= 65


@pytest.mark.parametrize("first", [FULL, LEAF])
async def test_a_publish_that_is_given_up_while_an_answer_is_held_leaves_nothing(
    autojump_clock: trio.testing.MockClock, first: dict[str, Any]
) -> None:
    async with publishing() as (js, scripted, server, _heard):
        scripted.script = [(0, first)]
        with trio.move_on_after(0.2) as scope:
            await js.publish("s.a", b"")
        assert scope.cancelled_caught
        assert js.nc.statistics().pending_requests == 0
        await trio.sleep(10)
        server.publish(server.sent("PUB", "s.a")[0].reply, json.dumps(HUB).encode())
        await trio.sleep(1)
        # Cut off meanwhile, it is not known what became of it.
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def fail() -> None:
                    with pytest.raises(errors.DisconnectedError):
                        await js.publish("s.a", b"")

                nursery.start_soon(fail)
                await trio.sleep(0.2)
                server.cut()
        await trio.sleep(10)


# -- repeated publishes ------------------------------------------------------------------------------------------------


def in_turn(*answers: dict[str, Any]) -> Callable[[Frame], dict[str, Any]]:
    rest = list(answers)
    return lambda _: rest.pop(0) if len(rest) > 1 else rest[0]


async def test_a_publish_whose_twin_is_under_way_is_sent_again_as_it_was(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    server.on("s.b", in_turn(UNDER_WAY, UNDER_WAY, UNDER_WAY, {**HUB, "duplicate": True}))
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial) as nc:
        start = trio.current_time()
        ack = await nc.jetstream().publish("s.b", b"x", msg_id="i", expected_last_sequence=3, headers={"A": "1"})
        assert (ack.seq, ack.duplicate) == (7, True)
        assert trio.current_time() - start == pytest.approx(0.05 + 0.1 + 0.25)
        assert len({(frame.headers, frame.payload) for frame in server.sent("HPUB", "s.b")}) == 1


async def test_it_is_not_sent_again_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.on("s.b", in_turn(UNDER_WAY))
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial) as nc:
        start = trio.current_time()
        with pytest.raises(errors.APIError, match=r"publish to 's\.b': under way \(code 409, error 10158\)"):
            await nc.jetstream().publish("s.b", b"x", msg_id="i")
        assert trio.current_time() - start == pytest.approx(3.9)


@pytest.mark.parametrize(
    "found",
    [
        {"message": {"subject": "s.b", "seq": 3, "time": "2026-11-28T17:00:00Z", "data": ""}},
        {"message": None},
        {"error": {"code": 404, "err_code": 10037, "description": "no message found"}},
        None,
    ],
)
async def test_a_conflict_with_something_else_stays_one(
    autojump_clock: trio.testing.MockClock, found: dict[str, Any] | None
) -> None:
    """Also where nobody says what stands there, or may."""
    server = FakeServer(deny_publish=() if found else ("$JS.API.STREAM.MSG.GET.S",))
    server.on("s.b", in_turn(CONFLICT))
    server.on("$JS.API.STREAM.MSG.GET.S", lambda _: found)
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial) as nc:
        with pytest.raises(errors.BadRequestError, match="wrong last sequence: 1") as caught:
            await nc.jetstream().publish("s.b", b"x", msg_id="i", expected_last_sequence=0)
        assert caught.value.stream == "S"


async def test_a_stream_that_cannot_be_named_is_not_asked(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    for stream in ("", "a.b", 5, None):
        server.on(f"s.{stream!r}".replace("'", "").replace("a.b", "ab"), in_turn({**CONFLICT, "stream": stream}))
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial) as nc:
        for subject in ("s.ab", "s.5", "s.None"):
            with pytest.raises(errors.BadRequestError):
                await nc.jetstream().publish(subject, b"x", msg_id="i", expected_last_sequence=0)
        assert not server.sent("PUB", "$JS.API.>")


async def test_the_last_of_two_streams_that_a_direct_get_names_is_the_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A message that was republished and stored again keeps the headers of the first stream before those of its own."""
    server = FakeServer()
    block = (
        b"NATS/1.0\r\nNats-Stream: A\r\nNats-Subject: a\r\nNats-Sequence: 9\r\n"
        b"Nats-Stream: S\r\nNats-Subject: s.a\r\nNats-Sequence: 3\r\nNats-Time-Stamp: 2026-11-28T17:00:00Z\r\n\r\n"
    )
    server.on("$JS.API.DIRECT.GET.S", lambda frame: server.publish(frame.reply, b"x", headers=block) and None)
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial) as nc:
        msg = await nc.jetstream().get_msg("S", 3, direct=True)
        assert (msg.subject, msg.seq) == ("s.a", 3)
