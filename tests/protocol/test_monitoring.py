"""What servers are asked of themselves, and what their answers are made of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import errors, monitoring
from trionats._protocol.monitoring.answers import active_servers, paging_of, read_answer, read_id
from trionats._protocol.monitoring.requests import ALL_SERVERS, chosen, filters, is_server_id, request_of
from trionats._protocol.parser import Message

ID = "N" + "A2" * 27 + "B"


def message(said: object) -> Message:
    return Message(1, "inbox", "", said if isinstance(said, bytes) else json.dumps(said).encode(), None)


# -- what is asked ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "server", "options", "subject", "payload"),
    [
        ("VARZ", ALL_SERVERS, {}, "$SYS.REQ.SERVER.PING.VARZ", b""),
        ("VARZ", ID, {}, f"$SYS.REQ.SERVER.{ID}.VARZ", b""),
        ("CONNZ", ALL_SERVERS, {"account": "A"}, "$SYS.REQ.ACCOUNT.A.CONNZ", b""),
        ("CONNZ", ALL_SERVERS, {"account": "A", "cid": 3}, "$SYS.REQ.ACCOUNT.A.CONNZ", b'{"cid": 3}'),
        ("CONNZ", ALL_SERVERS, {"account": "a b"}, "$SYS.REQ.SERVER.PING.CONNZ", b'{"acc": "a b"}'),
        ("CONNZ", ID, {"account": "A"}, f"$SYS.REQ.SERVER.{ID}.CONNZ", b'{"acc": "A"}'),
        ("CONNZ", ALL_SERVERS, {"state": "closed"}, "$SYS.REQ.SERVER.PING.CONNZ", b'{"state": 1}'),
        ("LEAFZ", ALL_SERVERS, {"account": "A"}, "$SYS.REQ.ACCOUNT.A.LEAFZ", b""),
        ("JSZ", ALL_SERVERS, {"account": "A"}, "$SYS.REQ.SERVER.PING.JSZ", b'{"account": "A"}'),
        ("JSZ", ALL_SERVERS, {"consumers": True}, "$SYS.REQ.SERVER.PING.JSZ", b'{"consumer": true}'),
        ("HEALTHZ", ID, {"js_server_only": True}, f"$SYS.REQ.SERVER.{ID}.HEALTHZ", b'{"js-server-only": true}'),
    ],
)
def test_who_is_asked_what(kind: Any, server: str, options: Any, subject: str, payload: bytes) -> None:  # noqa: ANN401
    assert request_of(kind, server, options) == (subject, payload)


def test_only_what_is_chosen_is_said() -> None:
    assert chosen("CONNZ", account=None, cid=None, auth=False, limit=None, state="open") == {"state": "open"}
    assert chosen("CONNZ", account="A", filter_subject="a.>", sort="subs") == {
        "account": "A",
        "filter_subject": "a.>",
        "sort": "subs",
    }
    assert chosen("CONNZ", state="closed", sort="reason") == {"state": "closed", "sort": "reason"}
    assert chosen("SUBSZ", offset=0, limit=7) == {"limit": 7}
    assert chosen("HEALTHZ", account="A", stream="S", consumer="c", js_enabled_only=True, js_server_only=False) == {
        "account": "A",
        "stream": "S",
        "consumer": "c",
        "js_enabled_only": True,
    }
    assert filters(cluster=None, tags=()) == {}
    assert filters(cluster="c", tags=["a"]) == {"cluster": "c", "tags": ["a"], "exact_match": True}


@pytest.mark.parametrize(
    ("kind", "given", "error", "text"),
    [
        ("CONNZ", {"account": ""}, ValueError, "connz: account is empty"),
        ("CONNZ", {"account": " "}, ValueError, "connz: account is empty"),
        ("CONNZ", {"account": 1}, TypeError, "connz: account must be text, not int"),
        ("CONNZ", {"cid": -1}, ValueError, "connz: cid is -1: it must be 0 or more"),
        ("CONNZ", {"cid": True}, TypeError, "connz: cid must be a whole number, not bool"),
        ("CONNZ", {"auth": 1}, TypeError, "connz: auth must be True or False, not int"),
        ("CONNZ", {"state": "shut"}, ValueError, "connz: state must be 'open' or 'closed' or 'all', not 'shut'"),
        ("CONNZ", {"sort": "size"}, ValueError, "connz: sort must be 'cid' or .*, not 'size'"),
        ("CONNZ", {"sort": "stop"}, ValueError, "connz: sort='stop' is for state='closed' only"),
        ("CONNZ", {"filter_subject": "a"}, ValueError, "connz: filter_subject needs the account"),
        ("CONNZ", {"filter_subject": "a..b", "account": "A"}, errors.BadSubjectError, "a..b"),
        ("HEALTHZ", {"stream": "S"}, ValueError, "healthz: stream needs the account that it is of"),
        ("HEALTHZ", {"consumer": "c", "account": "A"}, ValueError, "healthz: consumer needs the stream that it is of"),
        ("HEALTHZ", {"js_enabled_only": True, "js_server_only": True}, ValueError, "exclude each other"),
        ("JSZ", {"streams": "yes"}, TypeError, "jsz: streams must be True or False, not str"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind: Any, given: Any, error: type[Exception], text: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=text):
        chosen(kind, **given)


def test_filters_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match="SystemClient: tags is empty"):
        filters(tags=["a", ""])
    with pytest.raises(TypeError, match="SystemClient: tags must be a list, not str"):
        filters(tags="a")
    with pytest.raises(TypeError, match="SystemClient: cluster must be text"):
        filters(cluster=1)


def test_an_id_is_told_from_a_name() -> None:
    assert is_server_id(ID)
    assert not is_server_id("n1")
    assert not is_server_id(ID.lower())
    assert not is_server_id(ID + "A")


# -- what is answered -----------------------------------------------------------------------------------------------------------

SERVER = {"name": "n1", "id": ID, "ver": "2.15.1", "time": "2026-11-29T12:00:00.123456789Z"}


def test_an_answer_knows_whose_it_is_and_keeps_what_is_new() -> None:
    found = read_answer(
        "VARZ",
        monitoring.Varz,
        message({"server": SERVER, "data": {"mem": 7, "ping_interval": 120_000_000_000, "cpu": 1.5, "newer": 1}}),
    )
    assert isinstance(found, monitoring.Varz)
    assert (found.server.name, found.server.id, found.server.version) == ("n1", ID, "2.15.1")
    assert (found.mem, found.ping_interval, found.cpu, found.extra) == (7, 120.0, 1.5, {"newer": 1})
    assert found.cluster == monitoring.ClusterOptions()


def test_an_error_of_a_server_is_one() -> None:
    said = {"server": SERVER, "data": None, "error": {"code": 500, "description": "Account nope does not exist"}}
    error = read_answer("ACCOUNTZ", monitoring.Accountz, message(said))
    assert isinstance(error, errors.MonitoringError)
    assert str(error) == "ACCOUNTZ of server 'n1': Account nope does not exist (500)"
    assert (error.request, error.server, error.server_id, error.code) == ("ACCOUNTZ", "n1", ID, 500)
    assert error.description == "Account nope does not exist"
    odd = read_answer("ACCOUNTZ", monitoring.Accountz, message({"error": {"code": "x"}}))
    assert isinstance(odd, errors.MonitoringError)
    assert (odd.server, odd.code, odd.description) == ("", None, "")


@pytest.mark.parametrize(
    "said", [b"", b"{", [], 3, {}, {"data": []}, {"server": 1, "data": {}}, {"data": {"mem": "x"}}, {"error": "x"}]
)
def test_what_is_no_answer_is_a_value_error(said: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_answer("VARZ", monitoring.Varz, message(said))


@pytest.mark.parametrize(
    ("said", "count"),
    [({"statsz": {"active_servers": 3}}, 3), ({"statsz": {}}, None), ({"statsz": {"active_servers": "3"}}, None),
     ({"statsz": {"active_servers": 0}}, None)],
)  # fmt: skip
def test_a_server_says_how_many_there_are(said: object, count: int | None) -> None:
    assert active_servers(message(said)) == count


@pytest.mark.parametrize("said", [b"x", [], {}, {"statsz": 3}])
def test_what_says_nothing_of_it_is_a_value_error(said: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        active_servers(message(said))


def test_a_server_says_what_it_is_called() -> None:
    assert read_id(message(SERVER)) == ("n1", ID)
    with pytest.raises(ValueError, match="object"):
        read_id(message([]))


# -- pages ------------------------------------------------------------------------------------------------------------------


def connz(there: list[int], offset: int = 0, size: int = 3) -> monitoring.Connz:
    """Answer as a server does that lists so many at once."""
    page = sorted(there)[offset : offset + size]
    connections = tuple(monitoring.ConnInfo(cid=cid) for cid in page)
    return monitoring.Connz(num_connections=len(page), total=len(there), offset=offset, connections=connections)


def all_pages(
    there: list[int], limit: int | None = None, size: int = 3, between: Callable[[], None] = lambda: None
) -> list[int]:
    paging = paging_of(connz(there, size=size), limit)
    assert paging is not None
    for _ in range(200):
        if (offset := paging.offset) is None:
            whole = paging.whole()
            assert whole.num_connections == len(whole.connections)
            return [one.cid for one in whole.connections]
        between()
        paging.take(connz(there, offset, size))
    raise AssertionError("it does not end")


@given(st.sets(st.integers(1, 99), max_size=30), st.integers(2, 8), st.none() | st.integers(1, 40))
def test_pages_make_a_whole_list(there: set[int], size: int, limit: int | None) -> None:
    assert all_pages(sorted(there), limit, size) == sorted(there)[:limit]


@given(st.sets(st.integers(1, 99), min_size=4, max_size=30), st.integers(0, 29), st.integers(0, 9))
def test_what_was_there_all_the_time_is_in_it_though_another_one_goes(there: set[int], who: int, page: int) -> None:
    now, before = sorted(there), list(range(page))

    def go() -> None:
        if before:
            before.pop()
        elif len(now) == len(there):
            del now[who % len(now)]

    found = all_pages(now, between=go)
    assert set(now) <= set(found)
    assert len(found) == len(set(found))


def test_accounts_come_in_pages_and_what_is_no_list_does_not() -> None:
    details = tuple(monitoring.AccountStats(name=name) for name in "abc")
    paging = paging_of(monitoring.Jsz(account_details=details[:2], total=3), None)
    assert paging is not None
    assert paging.offset == 1
    paging.take(monitoring.Jsz(account_details=details[1:], total=3))
    assert (paging.offset or 0) == 0
    assert paging.whole().account_details == details
    assert paging_of(monitoring.Jsz(total=3), None) is None
    assert paging_of(monitoring.Varz(), None) is None


def test_answers_are_a_sequence() -> None:
    one, two = monitoring.Varz(mem=1), monitoring.Varz(mem=2)
    answers = monitoring.Answers((one, two))
    assert (len(answers), answers[0], answers[1:], list(answers)) == (2, one, (two,), [one, two])
    assert (answers.failed, answers.missing) == ((), None)
    assert not monitoring.Answers(())
    assert monitoring.Healthz(status="ok").ok
    assert not monitoring.Healthz(status="unavailable").ok
    assert re.search("extra", repr(monitoring.Varz(extra={"extra": 1}))) is None
