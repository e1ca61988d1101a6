"""Advisories as a feed, against a server in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes import FakeServer
from tests.worlds import arrived, open_world, settled
from trionats import advisories, errors, events, open_advisories, open_events
from trionats._open import advisories as heard

AUDIT = "$JS.EVENT.ADVISORY.API"
ACTION = "$JS.EVENT.ADVISORY.STREAM.CREATED.S"


def tell(server: FakeServer, subject: str = ACTION, **said: Any) -> None:  # noqa: ANN401 - any field
    said = {"type": "io.nats.jetstream.advisory.v1.stream_action", "stream": "S", "action": "create", **said}
    server.publish(subject, json.dumps(said).encode())


async def test_all_kinds_are_heard_and_unknown_ones_kept() -> None:
    async with open_world() as (server, nc, nursery), open_advisories(nursery, nc.jetstream()) as rx:
        await nc.flush()
        assert [s.subject for s in server.subscriptions] == ["$JS.EVENT.ADVISORY.>", "$JS.EVENT.METRIC.>"]
        tell(server)
        tell(server, "$JS.EVENT.ADVISORY.NEW.S", type="io.nats.jetstream.advisory.v2.new")
        first, second = await rx.receive(), await rx.receive()
        assert isinstance(first, advisories.StreamAction)
        assert (first.stream, first.action, first.subject) == ("S", "create", ACTION)
        assert type(second) is advisories.Advisory
        assert second.raw["stream"] == "S"
        assert rx.dropped == 0


async def test_only_the_kinds_that_are_asked_for_are_subscribed_and_given() -> None:
    kinds = (advisories.StreamAction, advisories.Nak)
    async with open_world() as (server, nc, nursery), open_advisories(nursery, nc.jetstream(), *kinds) as rx:
        await nc.flush()
        subjects = [s.subject.removeprefix("$JS.EVENT.ADVISORY.") for s in server.subscriptions]
        assert subjects == ["STREAM.CREATED.*", "STREAM.UPDATED.*", "STREAM.DELETED.*", "CONSUMER.MSG_NAKED.*.*"]
        tell(server, type="io.nats.jetstream.advisory.v1.snapshot_create")  # on a subject of another kind
        tell(server, stream="T")
        assert (await rx.receive()).raw["stream"] == "T"
    assert not server.subscriptions


async def test_what_cannot_be_read_harms_only_itself() -> None:
    async with (
        open_world() as (server, nc, nursery),
        open_events(nursery, nc) as told,
        open_advisories(nursery, nc.jetstream()) as rx,
    ):
        await nc.flush()
        for data in (b"", b"{", b"[]", b"\xff", b"[" * 50_000, b'{"timestamp": 1}'):
            server.publish(AUDIT, data)
        tell(server, action=7)
        tell(server, stream="good")
        assert (await rx.receive()).raw["stream"] == "good"
        [skipped] = arrived(told, events.ForeignDataSkipped)
        assert skipped.where == "advisories"


async def test_a_context_of_a_domain_hears_that_domain() -> None:
    async with (
        open_world() as (server, nc, nursery),
        open_advisories(nursery, nc.jetstream(domain="hub")) as hub,
        open_advisories(nursery, nc.jetstream()) as both,
    ):
        await nc.flush()
        tell(server)
        for domain in ("leaf", "hub"):
            tell(server, domain=domain)
        await nc.flush()
        assert [advisory.domain for advisory in arrived(hub)] == ["hub"]
        assert [advisory.domain for advisory in arrived(both)] == [None, "leaf", "hub"]


async def test_they_are_heard_under_another_prefix() -> None:
    async with open_world() as (server, nc, nursery), open_advisories(nursery, nc.jetstream(), prefix="a.events") as rx:
        await nc.flush()
        tell(server)
        tell(server, "a.events.ADVISORY.STREAM.CREATED.S", stream="theirs")
        assert (await rx.receive()).raw["stream"] == "theirs"


@pytest.mark.parametrize(("number", "size"), [(3, 10**6), (100, 400)], ids=["number", "bytes"])
async def test_the_oldest_are_dropped_and_counted_where_nobody_receives(
    number: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heard, "CAPACITY", number)
    monkeypatch.setattr(heard, "CAPACITY_BYTES", size)
    async with (
        open_world() as (server, nc, nursery),
        open_events(nursery, nc) as told,
        open_advisories(nursery, nc.jetstream(), advisories.StreamAction) as rx,
    ):
        await nc.flush()
        for each in range(10):
            tell(server, stream=str(each))
        await nc.flush()
        there = [advisory.raw["stream"] for advisory in arrived(rx)]
        assert there == [str(each) for each in range(10)][-len(there) :]
        assert (0 < len(there) < 10, rx.dropped) == (True, 10 - len(there))
        [slow] = arrived(told, events.SlowConsumer)
        assert (slow.subject, slow.dropped) == ("$JS.EVENT.>", 1)
        # Whoever keeps up afterwards loses nothing, and a second episode is told again.
        for each in range(20):
            tell(server, stream=str(each))
            assert (await rx.receive()).raw["stream"] == str(each)
        for each in range(10):
            tell(server, stream=str(each))
        await nc.flush()
        assert len(arrived(told, events.SlowConsumer)) == 1


async def test_a_refused_subject_is_raised_by_receive() -> None:
    async with (
        open_world(FakeServer(deny_subscribe=("$JS.EVENT.METRIC.>",))) as (server, nc, nursery),
        open_advisories(nursery, nc.jetstream()) as rx,
    ):
        with pytest.raises(errors.PermissionsViolationError, match=r"advisories: .*METRIC"):
            await rx.receive()
        await nc.flush()
        assert not server.subscriptions, "nor is the other one needed any more"


async def test_what_is_no_context_and_no_kind_is_refused_before_anything_is_sent() -> None:
    async with open_world() as (server, nc, nursery):
        before = len(server.frames)
        js: Any = nc.jetstream()
        for arguments, options, kind, text in (
            ((nc,), {}, TypeError, r"open_advisories\(nursery, js, \.\.\.\): js must be a JetStream, not Client"),
            ((js, "nak"), {}, TypeError, r"a kind must be a class of trionats\.advisories, not 'nak'"),
            (
                (js,),
                {"timeout": 1},
                TypeError,
                r"open_advisories\(\) takes no timeout: deadlines are cancel scopes",
            ),
            ((js,), {"prefix": "a b"}, errors.BadSubjectError, "a b"),
        ):
            wrong: Any = options
            with pytest.raises(kind, match=text):
                async with open_advisories(nursery, *arguments, **wrong):
                    raise AssertionError("it was opened")
        await settled()
        assert len(server.frames) == before
