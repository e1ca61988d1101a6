"""What services are called, what they answer and count, which error follows from what, and how a deadline travels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from multidict import MultiDict

from trionats import api
from trionats._protocol.services import names
from trionats._protocol.services.answers import as_json, encoded
from trionats._protocol.services.deadlines import mentions, seconds_left, with_timeout
from trionats._protocol.services.failures import Failure, failure, failure_of, parts
from trionats._protocol.services.staffing import Staffing
from trionats._protocol.services.tally import Tally
from trionats._protocol.services.words import VERBS, control_subject


def test_a_service_is_asked_on_three_levels_under_a_prefix_that_tools_may_change() -> None:
    assert [control_subject(verb) for verb in VERBS] == ["$SRV.PING", "$SRV.INFO", "$SRV.STATS"]
    assert control_subject("INFO", "orders") == "$SRV.INFO.orders"
    assert control_subject("STATS", "orders", "ID") == "$SRV.STATS.orders.ID"
    assert control_subject("PING", "orders", prefix="tool.$SRV") == "tool.$SRV.PING.orders"


# -- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orders", "Orders_2-b", "-", "0"])
def test_names_are_letters_digits_dashes_and_underscores(name: str) -> None:
    assert names.name_of("open_service", name) == name


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a*", ">", "é", "a\n", "x" * 200 + "."])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="open_service: name '"):
        names.name_of("open_service", name)


@pytest.mark.parametrize("value", [None, 1, b"a"])
def test_what_is_no_text_is_refused(value: Any) -> None:  # noqa: ANN401 - what nobody should pass
    for check in (names.name_of, names.version_of, names.described):
        with pytest.raises(TypeError, match=r"open_service: (name|version|description) must be text"):
            check("open_service", value)


@pytest.mark.parametrize(
    "version", ["0.0.0", "1.2.3", "10.20.30", "1.2.3-alpha", "1.2.3-0a.b-c.1", "1.2.3+build.01", "1.0.0-rc.1+5114f85"]
)
def test_versions_are_semantic(version: str) -> None:
    assert names.version_of("open_service", version) == version


@pytest.mark.parametrize(
    "version", ["", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.3-a..b", "1.2.3\n"]
)
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(ValueError, match="open_service: version '"):
        names.version_of("open_service", version)


def test_metadata_is_a_copy() -> None:
    assert names.described("open_service", "prices") == "prices"
    given_ = {"a": "b"}
    copied = names.metadata_of("open_service", given_)
    given_["c"] = "d"
    assert copied == {"a": "b"}
    assert names.metadata_of("open_service", None) == {}
    assert names.metadata_of("open_service", MultiDict(a="b")) == {"a": "b"}


@pytest.mark.parametrize("metadata", [["a"], "a", {"a": 1}, {1: "a"}, {"a": None}])
def test_metadata_that_is_none_is_refused(metadata: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="open_service: metadata"):
        names.metadata_of("open_service", metadata)


def test_a_queue_group_is_inherited_chosen_or_none() -> None:
    assert names.queue_of("group", None, "q") == "q"
    assert names.queue_of("group", "mine", "q") == "mine"
    assert not names.queue_of("group", "", "q")
    with pytest.raises(ValueError, match="group: queue group 'a b'"):
        names.queue_of("group", "a b", "q")
    with pytest.raises(TypeError, match="group: queue must be text"):
        names.queue_of("group", 1, "q")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="open_service: queue must be text, not None"):
        names.queue_of("open_service", None, None)


def test_groups_stand_in_front_of_subjects() -> None:
    outer = names.group_prefix("group", "", "v1.*")
    inner = names.group_prefix("group", outer, "prices")
    assert inner == "v1.*.prices"
    assert names.endpoint_subject("serve", inner, "get", None) == "v1.*.prices.get"
    assert names.endpoint_subject("serve", inner, "get", "of.>") == "v1.*.prices.of.>"
    assert names.endpoint_subject("serve", "", "get", None) == "get"
    assert names.endpoint_subject("serve", "", "get", "else") == "else"


@pytest.mark.parametrize("name", ["", "a..b", "a b", "a.>", ">", "a*b"])
def test_a_group_that_nothing_can_follow_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="group: name"):
        names.group_prefix("group", "", name)


def test_a_subject_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="serve: subject"):
        names.endpoint_subject("serve", "v1", "get", "a..b")
    with pytest.raises(TypeError, match="serve: subject must be text"):
        names.endpoint_subject("serve", "v1", "get", 7)  # type: ignore[arg-type]


# -- errors ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "said"), [(404, "404"), ("404", "404"), (0, "0")])
def test_an_error_has_a_code_and_a_description(code: int | str, said: str) -> None:
    found = failure("respond_error", code, "not there")
    assert found == (said, "not there")
    assert str(found) == f"{said}:not there"
    assert found.headers({"A": ["b", "c"], "Nats-Service-Error": "x"}) == MultiDict(
        [("A", ["b", "c"]), ("Nats-Service-Error", "not there"), ("Nats-Service-Error-Code", said)]
    )


@pytest.mark.parametrize(
    ("code", "description", "error", "field"),
    [
        (True, "x", TypeError, "code"),
        (None, "x", TypeError, "code"),
        (4.5, "x", TypeError, "code"),
        ("", "x", ValueError, "code"),
        ("4\n4", "x", ValueError, "code"),
        ("4\n", "x", ValueError, "code"),
        (400, "bad\r\n", ValueError, "description"),
        (400, None, TypeError, "description"),
        (400, " ", ValueError, "description"),
        (400, "a\r\nB: c", ValueError, "description"),
    ],
)
def test_an_error_that_is_none_is_refused(
    code: object, description: object, error: type[Exception], field: str
) -> None:
    with pytest.raises(error, match=f"respond_error: {field} must be"):
        failure("respond_error", code, description)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("secret"), "ValueError"),
        (ExceptionGroup("secret", [ValueError()]), "ExceptionGroup"),
        (BaseExceptionGroup("", [ValueError(), KeyboardInterrupt()]), "BaseExceptionGroup"),
        (BaseExceptionGroup("", [SystemExit(), KeyboardInterrupt()]), None),
        (KeyboardInterrupt(), None),
        (type("Gr\u00f6\u00dfe", (Exception,), {})(), "Gr\u00f6\u00dfe"),
        (type("two\r\nlines", (Exception,), {})(), "Exception"),
        (type("", (Exception,), {})(), "Exception"),
    ],
)
def test_of_an_exception_only_its_class_is_said(error: BaseException, said: str | None) -> None:
    found = failure_of(error)
    assert found == (None if said is None else Failure("500", said))


def test_what_ends_a_task_is_told_from_what_failed() -> None:
    bug, end = ValueError(), KeyboardInterrupt()
    group = BaseExceptionGroup("", [BaseExceptionGroup("", [bug, end]), end, ExceptionGroup("", [bug])])
    ends, failed = parts(group)
    assert isinstance(ends, BaseExceptionGroup)
    assert isinstance(failed, ExceptionGroup)
    assert ends.subgroup(ValueError) is None
    assert all(isinstance(each, Exception) for each in failed.exceptions)


class Problems(BaseExceptionGroup[BaseException]):
    """Groups of a class of its own, as somebody may have them."""

    def derive(self, excs: Sequence[BaseException], /) -> Problems:  # type: ignore[override]
        return Problems(self.message, excs)


def test_groups_of_other_classes_are_told_apart_too() -> None:
    bug, other, end = ValueError(), KeyError(), KeyboardInterrupt()
    ends, failed = parts(Problems("both", [bug, Problems("inner", [other, end])]))
    assert isinstance(ends, Problems)
    assert isinstance(failed, ExceptionGroup)
    assert failed.exceptions == (bug, other)
    assert parts(Problems("", [end]))[1] is None
    assert parts(Problems("", [bug]))[0] is None


# -- what is counted ---------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_was_never_called_has_no_average() -> None:
    stats = Tally().stats("price", "v1.price", "q")
    assert stats == api.EndpointStats("price", "v1.price", "q")
    assert (stats.average_processing_time, stats.last_error) == (0, "")


def test_times_are_whole_nanoseconds() -> None:
    tally = Tally()
    tally.requests = 3
    for seconds in (0.000001, 0.000002, -1.0):
        tally.took(seconds)
    tally.failed(Failure("400", "bad"))
    stats = tally.stats("price", "price", "")
    assert (stats.processing_time, stats.average_processing_time) == (3000, 1000)
    assert (stats.num_requests, stats.num_errors, stats.last_error) == (3, 1, "400:bad")
    tally.reset()
    assert tally.stats("price", "price", "") == api.EndpointStats("price", "price")


class Counting(RuleBasedStateMachine):
    """What is told is the sum of what happened since the last reset."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self.requests, self.errors, self.times = 0, list[str](), list[int]()

    @rule()
    def come(self) -> None:
        self.tally.requests += 1
        self.requests += 1

    @rule(description=st.text(max_size=3))
    def fail(self, description: str) -> None:
        self.tally.failed(Failure("500", description))
        self.errors.append(f"500:{description}")

    @rule(nanoseconds=st.integers(0, 10**12))
    def take(self, nanoseconds: int) -> None:
        self.tally.took(nanoseconds / 1e9)
        self.times.append(nanoseconds)

    @rule()
    def reset(self) -> None:
        self.tally.reset()
        self.requests, self.errors, self.times = 0, [], []

    @invariant()
    def told(self) -> None:
        stats = self.tally.stats("a", "a", "q")
        assert (stats.num_requests, stats.num_errors) == (self.requests, len(self.errors))
        assert stats.last_error == (self.errors[-1] if self.errors else "")
        assert stats.processing_time == sum(self.times)
        assert stats.average_processing_time == (sum(self.times) // len(self.times) if self.times else 0)


TestCounting = Counting.TestCase


# -- who works -----------------------------------------------------------------------------------------------------------------


class Working(RuleBasedStateMachine):
    """Workers as they are: who waits for requests, whose handler runs, and whose handler waits for something else."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 3
        self.staffing = Staffing(self.most)
        self.waiting, self.running, self.held, self.requests = 1, 0, 0, 0

    @rule(count=st.integers(1, 5))
    def requests_come(self, count: int) -> None:
        self.requests += count

    @precondition(lambda self: self.waiting and self.requests)
    @rule()
    def one_takes_a_request(self) -> None:
        self.staffing.took()
        self.waiting, self.running, self.requests = self.waiting - 1, self.running + 1, self.requests - 1

    @precondition(lambda self: self.running)
    @rule()
    def its_handler_waits(self) -> None:
        self.running, self.held = self.running - 1, self.held + 1
        if self.staffing.handler_waits():
            self.waiting += 1

    @precondition(lambda self: self.running or self.held)
    @rule(data=st.data())
    def one_is_done(self, data: st.DataObject) -> None:
        if data.draw(st.sampled_from([*["running"] * bool(self.running), *["held"] * bool(self.held)])) == "running":
            self.running -= 1
        else:
            self.held -= 1
        if not self.staffing.is_done(more=self.requests > 0):
            self.waiting += 1

    @invariant()
    def never_too_many_nor_too_few(self) -> None:
        size = self.waiting + self.running + self.held
        assert 1 <= size <= self.most
        # Somebody takes the next request, now or when the handler that runs is through or waits.
        assert self.waiting or self.running or size == self.most
        if not self.requests and not self.running and not self.held:
            assert self.waiting


TestWorking = Working.TestCase


def test_handlers_that_never_wait_need_one_worker() -> None:
    staffing = Staffing(50)
    for more in (True, False, True):
        staffing.took()
        assert not staffing.is_done(more=more)


# -- what is answered ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_what_the_others_read() -> None:
    started = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    stats = api.ServiceStats("orders", "ID", "1.0.0", started, {}, [api.EndpointStats("price", "v1.price", "q")])
    assert json.loads(encoded(stats)) == {
        "type": "io.nats.micro.v1.stats_response",
        "name": "orders",
        "id": "ID",
        "version": "1.0.0",
        "metadata": {},
        "started": "2026-01-02T03:04:05.678000Z",
        "endpoints": [
            {
                "name": "price",
                "subject": "v1.price",
                "queue_group": "q",
                "num_requests": 0,
                "num_errors": 0,
                "last_error": "",
                "processing_time": 0,
                "average_processing_time": 0,
                "data": None,
            }
        ],
    }
    whole_second = api.ServiceStats("orders", "ID", "1.0.0", started.replace(microsecond=0))
    assert json.loads(encoded(whole_second))["started"] == "2026-01-02T03:04:05.000000Z"
    ping = api.ServicePing("orders", "ID", "1.0.0", {"a": "\udc80"})
    assert json.loads(encoded(ping))["type"] == "io.nats.micro.v1.ping_response"
    assert api.ServiceStats.from_response(json.loads(encoded(stats))) == stats
    assert "started" not in json.loads(encoded(api.ServiceStats("orders", "ID", "1.0.0")))


@pytest.mark.parametrize("data", [{1, 2}, math.nan, object()])
def test_data_that_json_does_not_have_is_refused(data: object) -> None:
    with pytest.raises((TypeError, ValueError), match="the stats_handler returned is nothing that JSON has: "):
        as_json(data)


def test_data_is_told_as_it_is_now_and_as_others_read_it() -> None:
    given: dict[str, Any] = {"fine": (1, None, "x")}
    data = as_json(given)
    given["fine"] = None
    assert data == {"fine": [1, None, "x"]}


# -- deadlines -----------------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1e9))
def test_a_deadline_travels_as_whole_milliseconds_and_never_gets_shorter(seconds: float) -> None:
    headers = with_timeout(None, seconds)
    assert headers is not None
    assert seconds <= seconds_left(MultiDict(headers)) <= seconds + 0.002  # type: ignore[arg-type]


@pytest.mark.parametrize(("seconds", "said"), [(0.0, "0"), (-3.0, "0"), (0.0001, "1"), (1.5, "1500")])
def test_a_deadline_is_said_beside_other_headers(seconds: float, said: str) -> None:
    headers = MultiDict([("A", "b"), ("A", "c")])
    assert with_timeout(headers, seconds) == MultiDict([("A", "b"), ("A", "c"), ("Trionats-Timeout", said)])
    assert "Trionats-Timeout" not in headers


def test_what_is_waited_for_for_ever_or_said_already_is_left_alone() -> None:
    mine = {"Trionats-Timeout": "7"}
    assert with_timeout(mine, 3.0) is mine
    assert with_timeout(None, math.inf) is None
    no_mapping: Any = [1]
    assert with_timeout(no_mapping, 3.0) is no_mapping  # whoever writes the headers complains


@pytest.mark.parametrize("said", ["", "x", "-1", "1.5", "²", "9" * 16, " 5", "1e3"])
def test_what_nobody_can_mean_is_no_deadline(said: str) -> None:
    assert seconds_left({"Trionats-Timeout": said}) == math.inf
    assert seconds_left({}) == math.inf


def test_most_requests_need_no_look_at_their_headers() -> None:
    assert not mentions(None)
    assert not mentions(b"NATS/1.0\r\nA: b\r\n\r\n")
    assert mentions(b"NATS/1.0\r\nTrionats-Timeout: 5\r\n\r\n")
