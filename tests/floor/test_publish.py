"""Acknowledged publish against a scripted server: which answer counts, how long it is waited for, and what is left of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio

from tests.fakes import FakeServer, Frame
from tests.worlds import arrived, connected, open_world, seam, settled, takes
from trionats import Client, Events, JetStream, Msg, errors, events, open_events
from trionats._jetstream.api import Api
from trionats._jetstream.publishing.destination import bucket_destination

pytestmark = pytest.mark.usefixtures("autojump_clock")

HUB = {"stream": "S", "seq": 7, "domain": "hub"}
LEAF = {"stream": "S", "seq": 1, "domain": "leaf"}
FULL = {"stream": "S", "error": {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}}
UNDER_WAY = {"stream": "S", "error": {"code": 409, "err_code": 10158, "description": "under way"}}
CONFLICT = {"stream": "S", "error": {"code": 400, "err_code": 10071, "description": "wrong last sequence: 1"}}


Script = list[tuple[float, dict[str, Any]]]


class Publishing(NamedTuple):
    """A JetStream, the script of what is answered to each publish (what, and how many seconds after it came), and what was told."""

    nc: Client
    js: JetStream
    script: Script
    server: FakeServer
    told: Events

    @property
    def elsewhere(self) -> list[events.StoredElsewhere]:
        return arrived(self.told, events.StoredElsewhere)


@asynccontextmanager
async def publishing(*script: tuple[float, dict[str, Any]], domain: str | None = "hub") -> AsyncIterator[Publishing]:
    async with open_world() as (server, nc, nursery), open_events(nursery, nc) as told:
        answers = list(script)

        async def later(delay: float, reply: str, answer: dict[str, Any]) -> None:
            await trio.sleep(delay)
            server.publish(reply, json.dumps(answer).encode())

        def published(frame: Frame) -> None:
            for delay, answer in answers:
                nursery.start_soon(later, delay, frame.reply, answer)

        server.on("$JS.hub.API.INFO", lambda _: {"domain": "hub"})
        server.on("s.a", published)
        yield Publishing(nc, nc.jetstream(domain=domain), answers, server, told)
        assert nc.statistics().pending_requests == 0


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
async def test_our_own_acknowledgement_is_waited_for(script: Script, seconds: float, told: int) -> None:
    async with publishing(*script) as p:
        with takes(seconds):
            ack = await p.js.publish("s.a", b"")
        assert (ack.seq, ack.domain) == (7, "hub")
        assert p.elsewhere == [STORED_ELSEWHERE] * told


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
async def test_what_was_refused_or_only_stored_elsewhere_is_an_error(script: Script, seconds: float, text: str) -> None:
    async with publishing(*script) as p:
        with takes(seconds), pytest.raises((errors.APIError, errors.NoStreamResponseError), match=text):
            await p.js.publish("s.a", b"")


async def test_a_refusal_is_waited_behind_according_to_the_distance() -> None:
    async with publishing((0, FULL)) as p:
        await p.js.api_request("INFO")
        with takes(0.1), pytest.raises(errors.APIError):
            await p.js.publish("s.a", b"")


async def test_without_a_domain_the_first_answer_counts() -> None:
    async with publishing((0, LEAF), (1, HUB), domain=None) as p:
        assert (await p.js.publish("s.a", b"")).domain == "leaf"
        p.script[0] = (0, FULL)
        with takes(0), pytest.raises(errors.APIError):
            await p.js.publish("s.a", b"")
        assert p.elsewhere == []


async def test_what_another_domain_says_later_is_told_too_and_not_kept_for_ever() -> None:
    async with publishing((0, HUB), (0.2, LEAF)) as p:
        await p.js.publish("s.a", b"")
        assert p.elsewhere == []
        await trio.sleep(1)
        assert p.elsewhere == [STORED_ELSEWHERE]
        p.script.pop()
        first = len(p.server.sent("PUB", "s.a"))
        for _ in range(100):
            await p.js.publish("s.a", b"")
        for frame in p.server.sent("PUB", "s.a")[first:]:
            p.server.publish(frame.reply, json.dumps(LEAF).encode())
        await trio.sleep(1)
        assert 64 <= len(p.elsewhere) <= 65


@pytest.mark.parametrize("first", [FULL, LEAF])
async def test_a_publish_that_is_given_up_while_an_answer_is_held_leaves_nothing(first: dict[str, Any]) -> None:
    async with publishing((0, first)) as p:
        with trio.move_on_after(0.2) as scope:
            await p.js.publish("s.a", b"")
        assert scope.cancelled_caught
        assert p.nc.statistics().pending_requests == 0
        await trio.sleep(10)
        p.server.publish(p.server.sent("PUB", "s.a")[0].reply, json.dumps(HUB).encode())
        await trio.sleep(1)

        # Cut off meanwhile, it is not known what became of it.
        async def fail() -> None:
            with pytest.raises(errors.DisconnectedError):
                await p.js.publish("s.a", b"")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep(0.2)
            p.server.cut()
        await trio.sleep(10)


async def test_in_a_bucket_a_refusal_is_waited_behind_although_its_domain_is_the_nearest() -> None:
    """Another domain's refusal may overtake its PubAck, and what was stored would be purged."""
    async with connected(FakeServer()) as nc:
        jetstream = Api(seam(nc))
        jetstream.whereabouts.heard({"domain": "leaf"})
        chooser = bucket_destination(jetstream, "OBJ_b", "$O.b.M.x", "put").chooser()
        assert chooser is not None
        assert chooser.choose(Msg(1, "in", "", json.dumps(FULL).encode())) >= 0.1
        assert (
            chooser.choose(Msg(1, "in", "", json.dumps({"stream": "OBJ_b", "seq": 1, "domain": "leaf"}).encode())) == 0
        )


# -- repeated publishes ------------------------------------------------------------------------------------------------


def in_turn(*answers: dict[str, Any]) -> Callable[[Frame], dict[str, Any]]:
    rest = list(answers)
    return lambda _: rest.pop(0) if len(rest) > 1 else rest[0]


async def test_a_publish_whose_twin_is_under_way_is_sent_again_as_it_was() -> None:
    server = FakeServer()
    server.on("s.b", in_turn(UNDER_WAY, UNDER_WAY, UNDER_WAY, {**HUB, "duplicate": True}))
    async with connected(server) as nc:
        with takes(0.05 + 0.1 + 0.25):
            ack = await nc.jetstream().publish("s.b", b"x", msg_id="i", expected_last_seq=3, headers={"A": "1"})
        assert (ack.seq, ack.duplicate) == (7, True)
        assert len({(frame.headers, frame.payload) for frame in server.sent("HPUB", "s.b")}) == 1


async def test_a_publish_that_was_cancelled_behind_its_sending_is_repeated_under_its_id() -> None:
    """Whether it was stored is not known then; what comes late of the first is nobody's."""
    server = FakeServer()
    stored: dict[bytes, Frame] = {}
    scope = trio.CancelScope()

    def store(frame: Frame) -> dict[str, Any] | None:
        if stored.setdefault(frame.headers, frame) is frame:
            scope.cancel()
            return None
        server.publish(stored[frame.headers].reply, json.dumps(HUB).encode())
        return {**HUB, "duplicate": True}

    server.on("s.b", store)
    async with connected(server) as nc:
        js = nc.jetstream()
        with scope:
            await js.publish("s.b", b"x", msg_id="i", expected_last_seq=6)
        assert scope.cancelled_caught
        again = await js.publish("s.b", b"x", msg_id="i", expected_last_seq=6)
        assert (again.seq, again.duplicate) == (7, True)
    assert len(stored) == 1


async def test_a_publish_that_nobody_hears_is_sent_again_as_it_was() -> None:
    server = FakeServer()
    heard: list[Frame] = []

    def third_time(frame: Frame) -> dict[str, Any] | None:
        heard.append(frame)
        if len(heard) == 3:
            return HUB
        server.publish(frame.reply, headers=b"NATS/1.0 503\r\n\r\n")
        return None

    server.on("s.b", third_time)
    async with connected(server) as nc:
        with takes(0.5):
            ack = await nc.jetstream().publish(
                "s.b",
                "ä",
                msg_id="i",
                msg_ttl=5,
                rollup="sub",
                expected_last_seq=3,
                stream="S",
                headers={"A": ["1", "2"]},
            )
        assert ack.seq == 7
    assert len(heard) == 3
    assert len({(frame.verb, frame.subject, frame.headers, frame.payload) for frame in heard}) == 1
    assert len({frame.reply for frame in heard}) == 3


async def test_an_argument_holds_where_a_header_says_something_else() -> None:
    server = FakeServer()
    server.on("s.b", in_turn(HUB))
    async with connected(server) as nc:
        headers = {"Nats-Msg-Id": "by hand", "Nats-Rollup": "all", "A": "1"}
        await nc.jetstream().publish("s.b", b"x", msg_id="given", headers=headers)
    (frame,) = server.sent("HPUB", "s.b")
    assert frame.headers.count(b"Nats-Msg-Id: given\r\n") == 1
    assert b"by hand" not in frame.headers
    assert b"Nats-Rollup: all\r\n" in frame.headers


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"timeout": 1}, TypeError, "with trio.fail_after"),
        ({"expected_last_sequence": 1}, TypeError, "it is called 'expected_last_seq' here"),
        ({"expected_stream": "S"}, TypeError, "it is called 'stream' here"),
        ({"nonsense": 1}, TypeError, "unexpected keyword argument 'nonsense'"),
        ({"expected_last_seq": -1}, ValueError, "expected_last_seq"),
        ({"rollup": "none"}, ValueError, "rollup"),
        ({"payload": "\ud800"}, ValueError, "publish to 's.b': payload is not valid Unicode text"),
    ],
)
async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    server = FakeServer()
    async with connected(server) as nc:
        with pytest.raises(kind, match=text):
            await nc.jetstream().publish("s.b", **dict[str, Any](arguments))
        assert not server.sent("PUB", ">")


async def test_a_publish_whose_connection_broke_says_that_it_was_sent() -> None:
    server = FakeServer()
    server.on("s.b", lambda _: server.cut())
    async with connected(server) as nc:
        with pytest.raises(errors.DisconnectedError) as caught:
            await nc.jetstream().publish("s.b", b"x")
        assert caught.value.sent is True


async def test_a_publish_that_had_not_left_waits_for_the_next_connection() -> None:
    server = FakeServer()
    server.on("s.b", in_turn(HUB))
    async with connected(server) as nc:
        server.dials = ["refuse"]
        server.cut()
        await settled()
        assert (await nc.jetstream().publish("s.b", b"x")).seq == 7


async def test_it_is_not_sent_again_for_ever() -> None:
    server = FakeServer()
    server.on("s.b", in_turn(UNDER_WAY))
    async with connected(server) as nc:
        text = r"publish to 's\.b': under way \(code 409, error 10158\)"
        with takes(3.9), pytest.raises(errors.APIError, match=text):
            await nc.jetstream().publish("s.b", b"x", msg_id="i")


@pytest.mark.parametrize(
    "found",
    [
        {"message": {"subject": "s.b", "seq": 3, "time": "2026-11-28T17:00:00Z", "data": ""}},
        {"message": None},
        {"error": {"code": 404, "err_code": 10037, "description": "no message found"}},
        None,
    ],
)
async def test_a_conflict_with_something_else_stays_one(found: dict[str, Any] | None) -> None:
    """Also where nobody says what stands there, or may."""
    server = FakeServer(deny_publish=() if found else ("$JS.API.STREAM.MSG.GET.S",))
    server.on("s.b", in_turn(CONFLICT))
    server.on("$JS.API.STREAM.MSG.GET.S", lambda _: found)
    async with connected(server) as nc:
        with pytest.raises(errors.BadRequestError, match="wrong last sequence: 1") as caught:
            await nc.jetstream().publish("s.b", b"x", msg_id="i", expected_last_seq=0)
        assert caught.value.stream == "S"


async def test_a_stream_that_cannot_be_named_is_not_asked() -> None:
    server = FakeServer()
    for stream in ("", "a.b", 5, None):
        server.on(f"s.{stream!r}".replace("'", "").replace("a.b", "ab"), in_turn({**CONFLICT, "stream": stream}))
    async with connected(server) as nc:
        for subject in ("s.ab", "s.5", "s.None"):
            with pytest.raises(errors.BadRequestError):
                await nc.jetstream().publish(subject, b"x", msg_id="i", expected_last_seq=0)
        assert not server.sent("PUB", "$JS.API.>")


async def test_the_last_of_two_streams_that_a_direct_get_names_is_the_one() -> None:
    """A message that was republished and stored again keeps the headers of the first stream before those of its own."""
    server = FakeServer()
    block = (
        b"NATS/1.0\r\nNats-Stream: A\r\nNats-Subject: a\r\nNats-Sequence: 9\r\n"
        b"Nats-Stream: S\r\nNats-Subject: s.a\r\nNats-Sequence: 3\r\nNats-Time-Stamp: 2026-11-28T17:00:00Z\r\n\r\n"
    )
    server.on("$JS.API.DIRECT.GET.S", lambda frame: server.publish(frame.reply, b"x", headers=block) and None)
    async with connected(server) as nc:
        msg = await nc.jetstream().get_msg("S", 3, direct=True)
        assert (msg.subject, msg.seq) == ("s.a", 3)
