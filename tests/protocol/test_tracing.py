"""What servers report of one message: read, in whatever order it comes, and known to be whole."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import errors, monitoring
from trionats._protocol.parser import Message
from trionats._protocol.tracing import Gathering, check_headers, read_hop, trace_fields
from trionats._protocol.versions import check_version
from trionats.monitoring import ServerInfo

TIME = "2026-11-29T12:00:00.123456789Z"


def event(kind: str, /, **fields: object) -> dict[str, Any]:
    return {"type": kind, "ts": TIME, **fields}


def ingress(kind: int = 0, **fields: object) -> dict[str, Any]:
    return event("in", kind=kind, cid=5, name="n", acc="A", subj="a.b", **fields)


def passed_on(number: str, kind: int = 1, error: str = "") -> dict[str, Any]:
    return event("eg", kind=kind, cid=7, name="other", hop=number, **({"error": error} if error else {}))


def report(*events: Any, number: str = "", server: str = "n1", **fields: Any) -> bytes:  # noqa: ANN401 - any JSON
    header = {"Nats-Trace-Dest": ["inbox"], **({"Nats-Trace-Hop": [number]} if number else {})}
    said = {"server": {"name": server, "id": server, "ver": "2.15.1"}, "request": {"header": header, "msgsize": 9}}
    return json.dumps({**said, "events": events, **fields}).encode()


def hop(*events: Any, number: str = "", server: str = "n1", **fields: Any) -> monitoring.TraceHop:  # noqa: ANN401 - any JSON
    return read_hop(Message(1, "inbox", "", report(*events, number=number, server=server, **fields), None))


def test_each_kind_of_event_is_read_and_unknown_fields_are_kept() -> None:
    found = hop(
        ingress(error="why"),
        event("sm", to="c.d"),
        event("se", acc="B", to="e"),
        event("si", acc="C", **{"from": "f", "to": "g"}),
        event("js", stream="S", subject="a.b", nointerest=True),
        event("js", stream="T", error="full"),
        event("eg", kind=0, cid=3, name="app", sub="a.*", queue="q", acc="B"),
        event("eg", kind=99, cid=3, newer=[1]),
        hops=4,
        fresh="x",
    )
    time = datetime(2026, 11, 29, 12, 0, 0, 123456, UTC)
    assert found.events == (
        monitoring.TraceIngress(time=time, cid=5, name="n", account="A", subject="a.b", error="why"),
        monitoring.TraceSubjectMapping(time=time, to="c.d"),
        monitoring.TraceStreamExport(time=time, account="B", to="e"),
        monitoring.TraceServiceImport(time=time, account="C", origin="f", to="g"),
        monitoring.TraceJetStream(time=time, stream="S", subject="a.b", no_interest=True),
        monitoring.TraceJetStream(time=time, stream="T", error="full"),
        monitoring.TraceEgress(time=time, cid=3, name="app", subscription="a.*", queue="q", account="B"),
        monitoring.TraceEgress(time=time, kind=99, cid=3, extra={"newer": [1]}),
    )
    assert (found.id, found.forwarded, found.size, found.extra) == ("", 4, 9, {"fresh": "x"})
    assert (found.server.name, found.server.version) == ("n1", "2.15.1")
    assert found.headers == {"Nats-Trace-Dest": ("inbox",)}
    assert found.ingress == found.events[0]
    assert [one.stored for one in found.events if isinstance(one, monitoring.TraceJetStream)] == [False, False]
    assert monitoring.TraceJetStream(stream="S").stored


def test_an_event_of_a_newer_server_and_one_that_cannot_be_read_harm_only_themselves() -> None:
    found = hop(ingress(), event("zz", what=1), event("js", stream=5), {"kind": 1}, {"type": []})
    assert [type(one).__name__ for one in found.events] == ["TraceIngress", *["UnknownTraceEvent"] * 4]
    assert found.events[1] == monitoring.UnknownTraceEvent(type="zz", extra={"ts": TIME, "what": 1})
    assert found.events[2] == monitoring.UnknownTraceEvent(type="js", extra={"ts": TIME, "stream": 5})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"events": {}}',
        report(3),
        report().replace(b'"name": "n1"', b'"name": 1'),
        report(request=[1]),
        report(hops="x"),
    ],
)
def test_what_is_no_report_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_hop(Message(1, "inbox", "", data, None))


def test_a_report_may_say_nothing_of_the_message() -> None:
    assert (hop(ingress(kind=1), request=None).id, hop(ingress(), request={}).size) == ("", 0)


def test_a_number_that_the_publisher_wrote_itself_is_not_the_servers() -> None:
    assert hop(ingress(), number="7").id == ""
    assert hop(ingress(kind=1), number="7").id == "7"


def test_the_first_server_alone_is_whole_at_once() -> None:
    gathering = Gathering("a.b", only=True)
    assert gathering.empty
    assert not gathering.complete
    assert gathering.take(hop(ingress(), event("eg", kind=0, cid=3, sub="a.*")))
    trace = gathering.trace()
    assert (trace.subject, trace.only, trace.complete, trace.missing) == ("a.b", True, True, ())
    assert [one.subscription for one in trace.deliveries] == ["a.*"]


TREE = {
    "": hop(ingress(), passed_on("1"), passed_on("2", kind=2), event("eg", kind=0, cid=3)),
    "1": hop(ingress(kind=1), passed_on("1.1", kind=4), number="1", server="n2"),
    "1.1": hop(ingress(kind=4), number="1.1", server="leaf"),
    "2": hop(ingress(kind=2), *[passed_on(f"2.{n}") for n in range(1, 11)], number="2", server="n3"),
    **{f"2.{n}": hop(ingress(kind=1), number=f"2.{n}", server=f"m{n}") for n in range(1, 11)},
}


@given(st.permutations(list(TREE)), st.integers(0, 3))
def test_reports_in_any_order_are_whole_with_the_last_and_never_before(order: list[str], again: int) -> None:
    gathering = Gathering("a.b", only=False)
    for index, number in enumerate(order):
        assert gathering.take(TREE[number]) is (index == len(order) - 1)
        if again:
            gathering.take(TREE[order[index // again]])  # the same one twice is one
    trace = gathering.trace()
    assert [one.id for one in trace.hops] == ["", "1", "1.1", "2", *(f"2.{n}" for n in range(1, 11))]
    assert trace.complete


def test_reports_of_two_servers_are_both_kept_whatever_number_they_have() -> None:
    gathering = Gathering("a.b", only=False)
    for server in ("n1", "n2", "n1"):
        gathering.take(hop(ingress(), server=server))
    assert [one.server.name for one in gathering.trace().hops] == ["n1", "n2"]


@given(st.sets(st.sampled_from(sorted(TREE)), min_size=1).filter(lambda gone: gone != set(TREE)))
def test_what_was_announced_and_did_not_come_is_named(gone: set[str]) -> None:
    gathering = Gathering("a.b", only=False)
    for number in set(TREE) - gone:
        assert not gathering.take(TREE[number])
    announced = {"", *itertools.chain(*(TREE[number].announced for number in set(TREE) - gone))}
    assert set(gathering.trace().missing) == announced & gone
    assert not gathering.trace().complete


def test_what_went_out_with_an_error_or_to_a_client_is_not_waited_for() -> None:
    gathering = Gathering("a.b", only=False)
    assert gathering.take(
        hop(ingress(), passed_on("1", error="remote does not support it"), passed_on("2", kind=0), hops=2)
    )
    assert gathering.trace().errors == ("remote does not support it",)
    assert gathering.trace().deliveries[0].hop == "2"


def test_a_refusal_at_the_first_server_is_the_error_that_a_complaint_would_be() -> None:
    gathering = Gathering("a.b", only=False)
    gathering.take(hop(ingress(kind=1, error='Permissions Violation for Publish to "a.b"'), number="1"))
    assert gathering.refusal() is None, "another server's is a part of the trace"
    gathering.take(hop(ingress(error='Permissions Violation for Publish to "a.b"')))
    refusal = gathering.refusal()
    assert isinstance(refusal, errors.PermissionsViolationError)
    assert (refusal.operation, refusal.subject) == ("publish", "a.b")
    for events in ([ingress()], [ingress(error="Maximum Payload Violation")], []):
        other = Gathering("a.b", only=False)
        other.take(hop(*events))
        assert other.refusal() is None


def test_a_trace_is_a_tree_as_text() -> None:
    gathering = Gathering("a.b", only=False)
    gathering.take(
        hop(
            ingress(),
            event("sm", to="c"),
            event("se", acc="B", to="c"),
            event("si", acc="C", **{"from": "a.b", "to": "d"}),
            event("js", stream="S", subject="c"),
            event("js", stream="T", subject="c", nointerest=True),
            passed_on("1"),
            passed_on("2", kind=99),
            event("eg", kind=0, cid=3, name="app", sub="a.*", queue="q", error="denied"),
            event("zz", what=1),
            server="n1",
        )
    )
    gathering.take(hop(ingress(kind=1), passed_on("1.1"), number="1", server="n2"))
    gathering._hops["2", "n3"] = monitoring.TraceHop(
        id="2", server=ServerInfo(name="n3", cluster="c", version="2.14.0"), events=()
    )
    assert str(gathering.trace()).split("\n") == [
        "server 'n1', 2.15.1",
        "  in from client 'n' as 'a.b' of A",
        "  mapped to 'c'",
        "  exported to B as 'c'",
        "  imported from C: 'a.b' as 'd'",
        "  --J stream 'S' as 'c'",
        "  --J stream 'T' as 'c': --X no interest",
        "  --> router 'other'",
        "  --> kind 99 'other'",
        "  --C client 'app' on 'a.*' of queue 'q': --X denied",
        f"  zz: {{'ts': '{TIME}', 'what': 1}}",
        "    server 'n2', 2.15.1",
        "      in from router 'n' as 'a.b' of A",
        "      --> router 'other'",
        "    server 'n3' in 'c', 2.14.0",
        "no report of hop 1.1",
    ]


def test_the_headers_of_a_trace() -> None:
    assert trace_fields("d", only=False) == {"Nats-Trace-Dest": "d"}
    assert trace_fields("d", only=True) == {"Nats-Trace-Dest": "d", "Nats-Trace-Only": "1"}


@pytest.mark.parametrize("name", ["Nats-Trace-Hop", "nats-trace-dest", "Nats-Trace-Origin-Account", "accept-Encoding"])
def test_headers_that_would_spoil_the_reports_are_refused(name: str) -> None:
    check_headers({"X-Mine": "1", "traceparent": "00-ab-cd-01"})
    with pytest.raises(ValueError, match=f"headers: '{name}'"):
        check_headers({"X-Mine": "1", name: "x"})


@pytest.mark.parametrize("version", ["2.10.29", "v2.9.0", "1.4.1", "2.10.0-RC.1"])
def test_a_server_that_is_too_old_is_named(version: str) -> None:
    with pytest.raises(errors.Error, match=rf"^trace needs a server of 2\.11 or later; this one is of {version}$"):
        check_version("trace", (2, 11), version)


@pytest.mark.parametrize("version", ["2.11.0", "2.15.1", "v3.0.0", "2.11.0-dev", "", "mine"])
def test_a_server_that_is_new_enough_or_does_not_say_is_asked(version: str) -> None:
    check_version("trace", (2, 11), version)
    assert version == version.strip()
