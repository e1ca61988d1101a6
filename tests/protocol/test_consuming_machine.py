"""A reader of a pull consumer against a server that loses, ends and refuses requests, over connections that come and go.

The model is the server: what it still has to give to which request. Each message has a number, and what is handed over is
exactly what was delivered, in that order, but for what had waited too long.
"""

from __future__ import annotations

import random
from collections import deque
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats import errors
from trionats._protocol.jetstream.actions import Fail, Inspect, Measure, Wait
from trionats._protocol.jetstream.consumers.consuming import Consuming, Renew, Tell, Traits
from trionats._protocol.jetstream.consumers.demand import Demand
from trionats._protocol.jetstream.pull import Pull

HEARTBEAT = 5.0
#: What ends one request, and says what it has not got ...
ENDS = ((408, "Request Timeout"), (409, "Message Size Exceeds MaxBytes"), (423, "Nats-Pin-Id mismatch"), (999, "New"))
#: ... or refuses it, before it has got anything.
REFUSALS = ((409, "Exceeded MaxWaiting"), (423, "Nats-Wrong-Pin-Id"), (408, "Requests Pending"), (503, ""))
COMPLETED = (409, "Batch Completed")
LEADERS = ("Leadership Change", "Server Shutdown")


class Request:
    """What the server knows of a request."""

    def __init__(self, pull: Pull) -> None:
        self.number, self.left = pull.number, pull.batch
        self.bytes_left = pull.max_bytes or inf
        self.given = 0


class Consumption(RuleBasedStateMachine):
    """See the module's text."""

    @initialize(
        credit=st.integers(1, 12),
        size=st.sampled_from([None, 300, 1000]),
        stop=st.sampled_from([0, 0, 20]),
        places=st.sampled_from([0, 1]),
        lists=st.booleans(),
    )
    def open(self, credit: int, size: int | None, stop: int, places: int, lists: bool) -> None:
        demand = Demand(credit, size, heartbeat=HEARTBEAT, stop_after=stop)
        self.credit, self.credit_bytes, self.stop = credit, demand.credit_bytes, stop
        # What does not fit into a request to a consumer that walks a list is lost.
        self.lists = lists
        traits = Traits(max_waiting=places, forgotten_after=9, halts=lists)
        self.consuming = Consuming("S", "C", demand, traits, random.Random(1))
        self.now = 0.0
        self.linked = True
        self.requests: list[Request] = []
        self.former: list[Request] = []
        self.buffer: deque[tuple[int, int]] = deque()
        self.next_number = 0
        self.delivered: list[int] = []
        self.seen: list[int] = []
        self.dropped: list[int] = []
        self.given_back: list[int] = []
        self.late = self.lost_before = self.stopped = False
        self.lose = 0
        self.resting: Wait | None = None
        self.step()

    def step(self) -> None:
        """Do what the reader says until it waits."""
        while True:
            step = self.consuming.next(self.now)
            if isinstance(step, Pull):
                assert self.linked
                assert not self.stopped
                assert step.batch > 0
                assert not (self.lists and step.max_bytes), "an entry of the list could be lost"
                if step.max_bytes == 1:
                    continue  # a sign of life
                if self.lose:
                    self.lose -= 1
                else:
                    self.requests.append(Request(step))
            elif isinstance(step, Renew):
                # What was asked for finds nobody any more; what was sent may still come.
                self.former, self.requests = self.former + self.requests, []
            elif isinstance(step, Inspect):
                self.consuming.inspect_failed(errors.explained(errors.ServiceUnavailableError, ""), self.now)
            elif isinstance(step, Measure):
                # In this world whoever chose too little waits for a smaller message.
                self.consuming._measure = False
            elif not isinstance(step, Tell):
                break
        assert isinstance(step, (Wait, Fail))
        self.resting = step if isinstance(step, Wait) else None

    def put(self, size: int) -> None:
        """Deliver a message, as the feed takes it."""
        number, self.next_number = self.next_number, self.next_number + 1
        if len(self.buffer) >= self.credit or (self.stop and self.consuming.enough):
            self.given_back.append(number)
            self.consuming.overflowed(size, self.now)
        else:
            self.delivered.append(number)
            self.buffer.append((number, size))
            self.consuming.received(size, self.now)

    def say(self, request: Request, code: int, text: str, *, pending: bool) -> None:
        size = 0 if request.bytes_left == inf else int(request.bytes_left)
        headers = {"Nats-Pending-Messages": str(request.left), "Nats-Pending-Bytes": str(size)} if pending else {}
        self.consuming.status(request.number, code, text, headers, self.now)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), size=st.integers(1, 200))
    def deliver(self, data: st.DataObject, size: int) -> None:
        request = data.draw(st.sampled_from(self.requests))
        if size > request.bytes_left:
            self.requests.remove(request)
            self.say(request, 409, "Message Size Exceeds MaxBytes", pending=True)
        else:
            request.left -= 1
            request.bytes_left -= size
            request.given += 1
            self.put(size)
            if not request.left or not request.bytes_left:
                self.requests.remove(request)
                if request.bytes_left and request.bytes_left != inf:
                    self.say(request, *COMPLETED, pending=True)
        self.step()

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), ending=st.sampled_from(ENDS))
    def end_one(self, data: st.DataObject, ending: tuple[int, str]) -> None:
        request = data.draw(st.sampled_from(self.requests))
        self.requests.remove(request)
        self.say(request, *ending, pending=True)
        self.step()

    @precondition(lambda self: any(not request.given for request in self.requests))
    @rule(data=st.data(), ending=st.sampled_from(REFUSALS))
    def refuse_one(self, data: st.DataObject, ending: tuple[int, str]) -> None:
        request = data.draw(st.sampled_from([request for request in self.requests if not request.given]))
        self.requests.remove(request)
        self.say(request, *ending, pending=False)
        self.step()

    @precondition(lambda self: self.requests)
    @rule(text=st.sampled_from(LEADERS))
    def change_leader(self, text: str) -> None:
        ended, self.requests = self.requests, []
        for request in ended:
            self.say(request, 409, text, pending=False)
        self.step()

    @rule()
    def lose_a_request(self) -> None:
        self.lose += 1

    @precondition(lambda self: self.requests)
    @rule()
    def beat(self) -> None:
        self.consuming.status(self.requests[0].number, 100, "Idle Heartbeat", {}, self.now)
        self.step()

    @precondition(lambda self: self.former)
    @rule(size=st.integers(1, 200))
    def deliver_late(self, size: int) -> None:
        self.late = True
        request = self.former[0]
        request.left -= 1
        if not request.left:
            self.former.pop(0)
        self.put(size)
        self.step()

    @rule(number=st.integers(0, 30), code=st.sampled_from([100, 404, 408, 423]))
    def late_status(self, number: int, code: int) -> None:
        """To an inbox that was replaced: the room above gives 0 for it."""
        self.consuming.status(0, code, "Request Timeout", {"Nats-Pending-Messages": str(number)}, self.now)
        self.step()

    @rule(seconds=st.sampled_from([0.01, 1.0, 2 * HEARTBEAT, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.consuming.overdue(self.now)
        self.step()

    @precondition(lambda self: self.buffer)
    @rule(fresh=st.booleans())
    def take(self, fresh: bool) -> None:
        number, size = self.buffer.popleft()
        if fresh or self.stop:
            self.seen.append(number)
        else:
            self.dropped.append(number)
        if self.consuming.taken(size, self.now, handed_over=fresh or bool(self.stop)):
            self.step()
        else:
            before = len(self.requests)
            self.step()
            assert len(self.requests) == before, "a look was worth it"

    @precondition(lambda self: self.linked)
    @rule()
    def lose_connection(self) -> None:
        self.linked = False
        self.requests, self.former = [], []
        self.consuming.connection_lost()
        self.step()

    @precondition(lambda self: not self.linked)
    @rule()
    def regain_connection(self) -> None:
        self.linked = True
        self.consuming.connection_restored(self.now)
        self.step()

    @precondition(lambda self: len(self.seen) > 10)
    @rule()
    def stop_reading(self) -> None:
        self.stopped = True
        self.consuming.stop()
        self.step()

    # What holds whatever has happened.

    @invariant()
    def nothing_more_is_outstanding_than_there_is_room_for(self) -> None:
        if self.late:
            return
        assert not self.given_back
        assert sum(request.left for request in self.requests) + len(self.buffer) <= self.credit
        # Of a list no request says how many bytes, and where sizes jump there are more than there is room for.
        if not self.lists and all(request.bytes_left != inf for request in self.requests):
            waiting = sum(size for _, size in self.buffer)
            alone = any(size > self.credit_bytes for _, size in self.buffer)
            assert alone or sum(request.bytes_left for request in self.requests) + waiting <= self.credit_bytes

    @invariant()
    def counts_are_never_negative(self) -> None:
        window = self.consuming._window
        assert window._asked >= 0
        assert window._asked_bytes >= 0
        assert window._buffered == len(self.buffer)
        assert window._buffered_bytes == sum(size for _, size in self.buffer)

    @invariant()
    def something_is_asked_for_while_it_runs_and_has_room(self) -> None:
        window = self.consuming._window
        wanted = window.wanted > len(self.buffer)
        paused = window._pause_until > self.now
        if self.linked and not self.stopped and not self.buffer and wanted and not paused:
            assert window.asked

    @invariant()
    def no_more_than_is_wanted_is_handed_over(self) -> None:
        assert not self.stop or len(self.seen) + len(self.buffer) <= self.stop

    @invariant()
    def what_is_handed_over_is_what_was_delivered_in_its_order(self) -> None:
        buffered = [number for number, _ in self.buffer]
        assert sorted([*self.seen, *self.dropped]) + buffered == self.delivered

    @invariant()
    def it_goes_on(self) -> None:
        assert self.consuming.failure is None


Consumption.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestConsumption = Consumption.TestCase
