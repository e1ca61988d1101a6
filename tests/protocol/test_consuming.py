"""What a reader of a pull consumer does next, whatever comes or does not come."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from math import inf
from typing import Any

import pytest

from trionats import errors
from trionats._protocol.jetstream.actions import Fail, Inspect, Measure, Wait
from trionats._protocol.jetstream.consumers.consuming import UNKNOWN, Consuming, News, Renew, Step, Tell, Traits
from trionats._protocol.jetstream.consumers.demand import Demand
from trionats._protocol.jetstream.pull import Pull, pull_limit

SIZE = 100


class Reader:
    """A reader and the time, and what it has asked for."""

    def __init__(self, traits: Traits = Traits(), **options: Any) -> None:  # noqa: ANN401, B008 - any option; it is frozen
        self.consuming = Consuming("S", "C", Demand(**options), traits, random.Random(1))
        self.now = 0.0
        self.pulls: list[Pull] = []
        self.news: list[Tell] = []

    def step(self) -> Step:
        """Do what needs no waiting, and give what does."""
        while True:
            step = self.consuming.next(self.now)
            if isinstance(step, Pull):
                self.pulls.append(step)
            elif isinstance(step, Tell):
                self.news.append(step)
            elif not isinstance(step, Renew):
                return step

    def asks(self) -> Pull:
        """Give the one request that goes out now."""
        before = len(self.pulls)
        self.step()
        (pull,) = self.pulls[before:]
        return pull

    def rests(self) -> bool:
        """Whether nothing is asked for now."""
        before = len(self.pulls)
        self.step()
        return len(self.pulls) == before

    def come(self, count: int = 1, size: int = SIZE) -> None:
        for _ in range(count):
            self.consuming.received(size, self.now)

    def take(self, count: int = 1, size: int = SIZE, *, handed_over: bool = True) -> bool:
        return [self.consuming.taken(size, self.now, handed_over=handed_over) for _ in range(count)][-1]

    def status(self, number: int, code: int, text: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.consuming.status(number, code, text, headers or {}, self.now)

    def silence(self) -> None:
        """Let so much time pass that silence is too long."""
        self.now = self.consuming.silent_after
        self.consuming.overdue(self.now)

    def failure(self) -> Exception:
        step = self.step()
        assert isinstance(step, Fail)
        return step.error

    def told(self) -> list[News]:
        self.step()
        return [tell.news for tell in self.news]


def test_it_asks_for_what_there_is_room_for_and_again_when_half_is_free() -> None:
    reader = Reader(max_messages=10)
    assert reader.asks().batch == 10
    reader.come(10)
    assert reader.rests()
    assert [reader.take() for _ in range(5)] == [False, False, False, False, True]
    assert reader.asks().batch == 5


@pytest.mark.parametrize(("threshold", "free"), [(0, 10), (9, 1), (7, 3)])
def test_it_asks_again_at_the_threshold_that_was_chosen(threshold: int, free: int) -> None:
    reader = Reader(max_messages=10, threshold_messages=threshold)
    reader.asks()
    reader.come(10)
    assert not any(reader.take() for _ in range(free - 1))
    assert reader.take()
    assert reader.asks().batch == free


def test_it_asks_again_at_the_threshold_in_bytes() -> None:
    reader = Reader(max_bytes=1000, threshold_bytes=700)
    reader.asks()
    reader.come(10)
    reader.take(2)
    assert reader.rests()
    reader.take()
    assert reader.asks().max_bytes == 300


def test_with_room_for_one_it_gets_one_after_the_other() -> None:
    reader = Reader(max_messages=1)
    for _ in range(5):
        assert reader.asks().batch == 1
        reader.come()
        assert reader.rests()
        assert reader.take()


def test_it_stops_asking_when_as_many_came_as_are_wanted() -> None:
    reader = Reader(max_messages=4, stop_after=6)
    assert reader.asks().batch == 4
    reader.come(4)
    reader.take(2)
    assert reader.asks().batch == 2
    reader.come(2)
    states = [(reader.consuming.enough, reader.consuming.done)]
    reader.take(3)
    assert reader.rests()
    # What has waited too long does not count.
    reader.take(handed_over=False)
    states.append((reader.consuming.enough, reader.consuming.done))
    assert reader.asks().batch == 1
    reader.come()
    reader.take(2)
    states.append((reader.consuming.enough, reader.consuming.done))
    assert states == [(True, False), (False, False), (True, True)]


def test_what_comes_beyond_what_is_wanted_gives_its_credit_back() -> None:
    reader = Reader(max_messages=4)
    reader.asks()
    reader.consuming.overflowed(SIZE, 0)
    reader.come(3)
    reader.take(3)
    assert reader.asks().batch == 4


def test_silence_of_two_heartbeats_is_told_and_asked_into_at_once() -> None:
    reader = Reader(heartbeat=0.5)
    reader.asks()
    assert reader.consuming.silent_after == 1.0
    reader.now = 0.99
    reader.consuming.overdue(reader.now)
    assert (reader.rests(), reader.news) == (True, [])
    reader.silence()
    assert reader.asks().batch == 500
    assert (reader.now, reader.told()) == (1.0, [News.SILENT])
    assert isinstance(reader.step(), Inspect)


def test_silence_is_told_once_until_something_is_heard() -> None:
    reader = Reader(heartbeat=1)
    reader.asks()
    for _ in range(3):
        reader.silence()
        reader.step()
        reader.consuming.inspect_failed(None, reader.now)
    assert reader.told() == [News.SILENT]
    reader.status(reader.pulls[-1].number, 100)
    reader.silence()
    assert reader.told() == [News.SILENT, News.SILENT]


def test_silence_means_nothing_while_nothing_is_asked_for_or_nobody_can_hear() -> None:
    reader = Reader(max_messages=2)
    reader.asks()
    reader.come(2)
    assert reader.consuming.silent_after == inf
    reader.take(2)
    reader.asks()
    reader.consuming.connection_lost()
    assert reader.consuming.silent_after == inf
    assert reader.step() == Wait(inf)
    reader.now = 100
    reader.consuming.connection_restored(reader.now)
    assert reader.asks().batch == 2
    assert reader.consuming.silent_after == 130


def test_another_inbox_takes_the_place_of_one_that_was_silent_before_anything_is_asked() -> None:
    reader = Reader()
    reader.asks()
    reader.silence()
    steps = [reader.consuming.next(reader.now) for _ in range(4)]
    assert [type(step) for step in steps] == [Tell, Renew, Pull, Inspect]


def test_a_status_to_an_inbox_that_was_replaced_changes_nothing_but_that_it_is_looked_at_a_deletion() -> None:
    reader = Reader(heartbeat=1)
    old = reader.asks().number
    reader.silence()
    reader.step()
    reader.consuming.inspected(0, 512, reader.now)
    reader.status(old, 408, "Request Timeout")
    assert isinstance(reader.step(), Wait)
    reader.status(0, 409, "Consumer Deleted")
    assert isinstance(reader.step(), Inspect)


@pytest.mark.parametrize(
    ("code", "text", "pause"),
    [
        (404, "No Messages", 0),
        (408, "Request Timeout", 0),
        (408, "Interest Expired", 0),
        (408, "Requests Pending", 1),
        (409, "Batch Completed", 0),
        (409, "Message Size Exceeds MaxBytes", 0),
        (409, "Leadership Change", 0),
        (409, "Server Shutdown", 0),
        (409, "Exceeded MaxWaiting", 1),
        (409, "Exceeded MaxRequestBatch of 5", 1),
        (423, "Nats-Wrong-Pin-Id", 1),
        (503, "", 0.05),
        (409, "Something New", 1),
        (999, "Something New", 1),
    ],
)
def test_after_each_status_that_ends_a_request_another_goes_out(code: int, text: str, pause: float) -> None:
    reader = Reader()
    reader.status(reader.asks().number, code, text, {"Nats-Pending-Messages": "400", "Nats-Pending-Bytes": "9"})
    if pause:
        assert reader.rests()
        reader.consuming.inspected(0, 0, 0)
    reader.now = pause
    reader.step()
    assert reader.pulls[1].batch in (5, 400, 500)


@pytest.mark.parametrize("text", ["Consumer Deleted", "Consumer is push based"])
def test_a_consumer_that_is_gone_is_an_error_that_names_it(text: str) -> None:
    reader = Reader()
    reader.status(reader.asks().number, 409, text)
    error = reader.failure()
    assert isinstance(error, errors.ConsumerGoneError)
    assert (error.consumer, error.stream) == ("C", "S")
    reader.consuming.forbidden(errors.PermissionsViolationError())
    assert reader.failure() is error


def test_a_request_that_is_not_understood_is_an_error_with_the_servers_words() -> None:
    reader = Reader()
    reader.status(reader.asks().number, 400, "Bad Request - Priority Group missing")
    error = reader.failure()
    assert isinstance(error, errors.BadRequestError)
    assert "Priority Group missing" in str(error)


def test_whoever_may_not_ask_fails_with_that() -> None:
    reader, refusal = Reader(), errors.PermissionsViolationError("no")
    reader.consuming.forbidden(refusal)
    assert reader.failure() is refusal


def test_nobody_listening_is_looked_into_and_gone_is_what_is_not_found_twice() -> None:
    reader = Reader()
    reader.status(reader.asks().number, 503)
    assert isinstance(reader.step(), Inspect)
    missing = errors.explained(errors.NotFoundError, "", err_code=10014, code=404, description="consumer not found")
    reader.consuming.inspect_failed(missing, reader.now)
    assert isinstance(reader.step(), Wait)
    reader.now += 0.25
    reader.step()
    assert isinstance(reader.step(), Inspect)
    reader.consuming.inspect_failed(missing, reader.now)
    error = reader.failure()
    assert isinstance(error, errors.ConsumerGoneError)
    assert "consumer not found" in str(error)


def miss(reader: Reader, times: int) -> list[float]:
    """Let nobody listen so many times in a row; give the pauses."""
    pauses = []
    for _ in range(times):
        pull = reader.asks()
        reader.status(pull.number, 503)
        reader.consuming.inspect_failed(errors.explained(errors.ServiceUnavailableError, ""), reader.now)
        step = reader.step()
        assert isinstance(step, Wait)
        pauses.append(step.until - reader.now)
        reader.now = step.until
    return pauses


def test_no_leader_never_ends_it_and_is_told_once() -> None:
    reader = Reader()
    pauses = miss(reader, 50)
    assert [tell.news for tell in reader.news] == [News.UNREACHABLE]
    assert max(pauses) <= 1.001
    assert pauses[0] <= 0.05
    assert min(pauses[10:]) >= 0.5
    reader.come()
    reader.take()
    assert miss(reader, 3)[0] <= 0.05
    assert reader.told() == [News.UNREACHABLE, News.UNREACHABLE]


def test_who_may_not_look_asks_for_ever() -> None:
    reader = Reader(UNKNOWN)
    reader.status(reader.asks().number, 503)
    assert isinstance(reader.step(), Inspect)
    reader.consuming.inspect_failed(errors.PermissionsViolationError(), reader.now)
    for _ in range(10):
        step = reader.step()
        assert isinstance(step, Wait)
        reader.now = step.until
        reader.status(reader.asks().number, 503)
    reader.consuming.connection_restored(reader.now)
    reader.now += 1
    reader.asks()
    reader.silence()
    reader.asks()
    reader.status(0, 409, "Consumer Deleted")
    assert isinstance(reader.step(), Wait)


def test_after_a_reconnect_a_consumer_that_is_known_is_looked_at_and_one_that_was_bound_is_not() -> None:
    for traits, expected in ((Traits(), Inspect), (UNKNOWN, Wait)):
        reader = Reader(traits)
        reader.asks()
        reader.consuming.connection_lost()
        reader.consuming.connection_restored(1)
        reader.now = 1
        assert isinstance(reader.step(), expected)


@pytest.mark.parametrize(
    ("text", "field", "limit"),
    [
        ("Exceeded MaxRequestBatch of 5", "batch", 5),
        ("Exceeded MaxRequestExpires of 2s", "expires", 2.0),
        ("Exceeded MaxRequestMaxBytes of 100", "max_bytes", 100),
    ],
)
def test_a_limit_that_the_server_names_is_kept_to(text: str, field: str, limit: float) -> None:
    reader = Reader()
    reader.status(reader.asks().number, 409, text)
    assert reader.told() == [News.LIMITED]
    assert reader.news[0].text == text
    reader.now = 1
    reader.step()
    pull = reader.pulls[-1]
    assert getattr(pull, field) == limit
    assert pull.heartbeat <= pull.expires / 2


def test_limits_that_are_known_are_kept_to_from_the_beginning() -> None:
    pull = Reader(Traits(max_batch=5, max_expires=4, max_bytes=100), max_messages=5, max_bytes=200).asks()
    assert (pull.batch, pull.expires, pull.max_bytes, pull.heartbeat) == (5, 4, 100, 2)
    # Who is pinned asks at least twice before it would lose the pin.
    assert Reader(Traits(pin_seconds=5)).asks().expires == 2.5


@pytest.mark.parametrize(("options", "heartbeat"), [({}, 1), ({"expires": 1}, 0.5), ({"heartbeat": 9}, 9)])
def test_a_consumer_that_stands_still_at_what_was_deleted_is_woken_by_heartbeats(
    options: dict[str, Any], heartbeat: float
) -> None:
    assert Reader(Traits(halts=True), **options).asks().heartbeat == heartbeat


def test_many_small_requests_are_under_way_but_not_all() -> None:
    reader = Reader(Traits(max_batch=5))
    reader.step()
    assert [pull.batch for pull in reader.pulls] == [5] * 16
    reader.come(5)
    reader.take(5)
    assert reader.rests()
    reader.status(1, 409, "Batch Completed", {"Nats-Pending-Messages": "0", "Nats-Pending-Bytes": "1"})
    assert reader.asks().batch == 5


def test_a_consumer_with_one_place_gets_one_request_at_a_time() -> None:
    reader = Reader(Traits(max_waiting=1), max_messages=10)
    reader.asks()
    reader.come(6)
    reader.take(6)
    assert reader.rests()
    reader.come(4)
    assert reader.asks().batch == 6


@pytest.mark.parametrize(("waiting", "places", "silences", "told"), [(512, 512, 1, True), (511, 512, 1, False)])
def test_a_consumer_that_takes_no_more_requests_is_found_out(
    waiting: int, places: int, silences: int, told: bool
) -> None:
    reader = Reader()
    reader.asks()
    for _ in range(silences):
        reader.silence()
        reader.step()
        reader.consuming.inspected(waiting, places, reader.now)
    assert (News.LIMITED in reader.told()) is told


def test_the_one_place_may_be_taken_by_our_own_request_so_it_is_found_out_at_the_second_silence() -> None:
    reader = Reader(Traits(max_waiting=1), heartbeat=1)
    reader.asks()
    reader.silence()
    reader.step()
    reader.consuming.inspected(1, 1, reader.now)
    assert reader.told() == [News.SILENT]
    reader.silence()
    reader.step()
    reader.consuming.inspected(1, 1, reader.now)
    assert reader.told() == [News.SILENT, News.LIMITED]
    assert "MaxWaiting: 1 requests wait, and there is room for 1" in reader.news[-1].text


def test_a_message_larger_than_what_was_chosen_is_measured_and_named_with_both_sizes() -> None:
    reader = Reader(max_bytes=1000)
    reader.status(reader.asks().number, 409, "Message Size Exceeds MaxBytes")
    assert isinstance(reader.step(), Measure)
    reader.consuming.measured(2345)
    error = reader.failure()
    assert isinstance(error, errors.BadRequestError)
    assert "max_bytes is 1000: the next message has 2345" in str(error)


def test_a_message_whose_size_is_not_found_out_is_named_with_what_is_known() -> None:
    reader = Reader(max_bytes=1000)
    reader.consuming.measured(0)
    assert "is larger" in str(reader.failure())


def test_a_message_larger_than_the_usual_credit_is_asked_for_alone() -> None:
    reader = Reader()
    reader.status(reader.asks().number, 409, "Message Size Exceeds MaxBytes")
    pull = reader.asks()
    assert (pull.batch, "max_bytes" in json.loads(pull.body())) == (1, False)


def test_the_name_that_the_server_gave_us_stands_in_what_is_asked_next() -> None:
    reader = Reader(max_messages=2, group="g")
    assert json.loads(reader.asks().body())["group"] == "g"
    reader.come(2)
    reader.consuming.tagged("pin1")
    reader.consuming.tagged("pin1")
    reader.take(2)
    pull = reader.asks()
    assert json.loads(pull.body())["id"] == "pin1"
    assert reader.told() == [News.PINNED]
    reader.status(pull.number, 423, "Nats-Pin-Id mismatch")
    assert "id" not in json.loads(reader.asks().body())
    assert reader.told() == [News.PINNED, News.UNPINNED]


def test_a_refusal_of_a_former_name_does_not_cost_the_new_one() -> None:
    reader = Reader(max_messages=4, threshold_messages=3, group="g")
    reader.consuming.tagged("pin1")
    old = reader.asks()
    reader.come()
    reader.consuming.tagged("pin2")
    reader.take()
    reader.asks()
    reader.status(old.number, 423, "Nats-Pin-Id mismatch")
    reader.now = 2
    assert reader.asks().pin == "pin2"
    assert News.UNPINNED not in reader.told()


def test_what_waited_too_long_is_counted_and_told_once_with_all_of_it() -> None:
    reader = Reader(max_messages=10)
    reader.asks()
    reader.come(10)
    reader.take(2)
    reader.take(3, handed_over=False)
    assert reader.told() == []
    assert reader.take()
    assert reader.told() == [News.EXPIRED]
    assert reader.news[0].number == 3
    # An episode ends with a message that was in time, but nobody is told more often than once a second.
    reader.take(handed_over=False)
    reader.take()
    assert reader.told() == [News.EXPIRED]
    reader.now = 2
    assert reader.take(2, handed_over=False)
    assert reader.told() == [News.EXPIRED, News.EXPIRED]
    assert reader.news[1].number == 6


def test_a_reader_that_was_too_slow_is_given_what_it_can_take_and_slowly_more() -> None:
    reader = Reader(max_messages=100)
    reader.asks()
    reader.come(100)
    reader.take(9)
    reader.take(91, handed_over=False)
    assert reader.asks().batch == 9
    sizes = []
    for _ in range(40):
        reader.come(reader.pulls[-1].batch)
        while reader.consuming._window.buffered_messages:
            reader.take()
        sizes.append(reader.asks().batch)
    assert sizes[:3] == [11, 13, 15]
    assert sizes[-1] == 100
    # One that slept once, and was quick before, is given as much as ever.
    reader.come(100)
    reader.take(50)
    reader.take(50, handed_over=False)
    assert reader.asks().batch == 100


def test_an_unknown_status_is_told_with_its_words() -> None:
    reader = Reader()
    reader.status(reader.asks().number, 499, "Something New")
    assert reader.told() == [News.STRANGE]
    assert (reader.news[0].number, reader.news[0].text) == (499, "Something New")


@pytest.mark.parametrize(("traits", "every"), [(Traits(forgotten_after=6), 2.0), (UNKNOWN, 5 / 3)])
def test_while_the_reader_sleeps_a_request_that_no_message_fits_into_keeps_the_consumer_alive(
    traits: Traits, every: float
) -> None:
    reader = Reader(traits, max_messages=2, group="g")
    reader.asks()
    reader.come(2)
    for sign in range(1, 4):
        step = reader.step()
        assert isinstance(step, Wait)
        assert step.until == pytest.approx(sign * every)
        reader.now = step.until
        sign_of_life = reader.asks()
        body = json.loads(sign_of_life.body())
        assert body == {"batch": 1, "max_bytes": 1, "expires": 100_000_000, "group": "g"}
        reader.status(sign_of_life.number, 409, "Message Size Exceeds MaxBytes")
    # It took no credit.
    reader.take(2)
    assert reader.asks().batch == 2


def test_a_consumer_that_walks_a_list_is_kept_alive_by_messages_as_long_as_there_is_room() -> None:
    """One that no message fits into would take an entry off the list."""
    reader = Reader(Traits(forgotten_after=6, halts=True), max_messages=16)
    first = reader.asks()
    assert (first.batch, first.max_bytes) == (14, 0)
    reader.come(14)
    for reader.now in (2.0, 4.0):
        assert json.loads(reader.asks().body()) == {"batch": 1, "expires": 100_000_000}
        reader.come(1)
    reader.now = 6.0
    assert reader.step() == Wait(8.0)
    # Somebody is there again: what is asked for is a sign, too.
    reader.take(16)
    again = reader.asks()
    assert again.batch == 14
    reader.now = 8.0
    reader.status(again.number, 100, "Idle Heartbeat")
    assert reader.step() == Wait(10.0)


def test_of_a_consumer_that_nobody_looked_at_no_bytes_are_named_either() -> None:
    reader = Reader(UNKNOWN)
    assert "max_bytes" not in json.loads(reader.asks().body())


def test_a_consumer_that_is_kept_for_ever_needs_no_sign_of_life() -> None:
    reader = Reader(max_messages=2)
    reader.asks()
    reader.come(2)
    assert reader.step() == Wait(inf)


def test_nothing_is_asked_for_when_nobody_wants_more() -> None:
    reader = Reader()
    reader.asks()
    reader.consuming.stop()
    reader.come(500)
    reader.take(500)
    assert reader.step() == Wait(inf)
    assert reader.consuming.silent_after == inf


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("Exceeded MaxRequestBatch of 5", ("batch", 5)),
        ("Exceeded MaxRequestExpires of 1m30s", ("expires", 90.0)),
        ("Exceeded MaxRequestExpires of 1.5s", ("expires", 1.5)),
        ("Exceeded MaxRequestExpires of 500ms", ("expires", 0.5)),
        ("Exceeded MaxRequestMaxBytes of 10", ("max_bytes", 10)),
        ("Exceeded MaxRequestBatch of 0", ("", 0)),
        ("Exceeded MaxRequestBatch of many", ("", 0)),
        (f"Exceeded MaxRequestBatch of {'9' * 30}", ("", 0)),
        ("Exceeded MaxRequestExpires of 0s", ("", 0)),
        ("Exceeded MaxRequestExpires of soon", ("", 0)),
        ("Exceeded MaxWaiting", ("", 0)),
    ],
)
def test_a_limit_is_read_from_the_servers_words(text: str, limit: tuple[str, float]) -> None:
    assert pull_limit(text) == limit
