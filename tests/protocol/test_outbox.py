"""What waits to be sent: in whole frames and in order; what is taken back leaves no trace, and numbers stay true."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.protocol.sessions import publish, sent
from trionats._protocol import commands
from trionats._protocol import outbox as room
from trionats._protocol.commands import LARGE, PING, Aside, Passing, pub, unsub
from trionats._protocol.outbox import FEW_GAPS, Outbox, Queued


def counted(outbox: Outbox) -> tuple[int, int, int]:
    return outbox.bytes, outbox.out_msgs, outbox.out_bytes


def test_batches_are_whole_frames() -> None:
    outbox = Outbox()
    frames = [bytes(publish(outbox, b"x" * size).frame) for size in (10, 20, 30, 500, 1)]
    assert outbox.bytes == sum(map(len, frames))
    both = frames[0] + frames[1]
    # The fourth is too big for any batch: one frame always comes.
    for limit, batch in ((len(both), both), (40, frames[2]), (40, frames[3]), (1, frames[4]), (1, b"")):
        assert sent(outbox, limit) == batch
    assert counted(outbox) == (0, 5, 561)


def test_large_payloads_are_sent_from_where_they_are() -> None:
    outbox, data = Outbox(), bytes(LARGE)
    large = commands.publish(b"s", b"", b"", data)
    outbox.publish(large, LARGE)
    batch = outbox.take(1)
    assert isinstance(batch, list)
    assert batch == [b"PUB s 32768\r\n", data, b"\r\n"]
    assert batch[1] is data
    for frame in (PING, PING, large, large, PING):
        outbox.queue(frame)
    outbox.frames.append(b"")
    batch = outbox.take(1 << 30)
    assert isinstance(batch, list)
    assert [len(piece) for piece in batch] == [25, LARGE, 15, LARGE, 8]
    assert b"".join(batch) == PING * 2 + bytes(large) * 2 + PING


def test_large_publishes_are_kept_counted_and_taken_back_as_all_are() -> None:
    outbox = Outbox()
    large = commands.publish(b"s", b"", b"", bytes(LARGE))
    one, two = outbox.publish_tracked(large, LARGE), outbox.publish_tracked(large, LARGE)
    assert outbox.withdraw(two)
    assert outbox.bytes == len(large)
    outbox.take(1 << 30)
    assert outbox.lost() == 1
    kept = outbox.publish_tracked(large, LARGE)
    assert (outbox.lost(), outbox.waits(one), outbox.waits(kept)) == (0, False, True)
    outbox.drop_oversized(LARGE)
    assert outbox.oversized == 0
    outbox.drop_oversized(LARGE - 1)
    assert (outbox.oversized, outbox.bytes) == (1, 0)


def test_a_loss_counts_the_batch_under_way_and_keeps_the_publishes_behind_it() -> None:
    outbox = Outbox()
    outbox.queue(b"SUB s 1\r\n")
    publish(outbox)
    publish(outbox)
    outbox.publish(b"HPUB s 12 12\r\nNATS/1.0\r\n\r\n\r\n", 12)
    outbox.queue(PING)
    outbox.take(1000)
    kept = publish(outbox, b"3")
    outbox.queue(PING)
    outbox.queue(unsub(9))
    assert [outbox.lost(), outbox.bytes, outbox.lost()] == [3, len(bytes(kept.frame)), 0]
    outbox.put_first([b"SUB s 1\r\n"])
    assert outbox.waits(kept)
    assert sent(outbox) == b"SUB s 1\r\n" + bytes(kept.frame)
    assert not outbox.waits(kept)
    assert outbox.out_msgs == 4


def test_our_own_publishes_are_nobodys_loss() -> None:
    """A goodbye waits for the next connection, what is passing does not, and neither is counted."""
    outbox, goodbye = Outbox(), Aside(pub(b"goodbye", b"", b"4444"))
    outbox.publish(Aside(pub(b"goodbye", b"", b"1")), 1)
    outbox.publish(Passing(pub(b"pull", b"", b"22")), 2)
    assert (outbox.unsent_publishes, outbox.holds_publishes) == (0, False)
    publish(outbox, b"333")
    assert (outbox.unsent_publishes, outbox.holds_publishes) == (1, True)
    outbox.take(1000)
    assert (outbox.unsent_publishes, outbox.holds_publishes) == (1, True)
    outbox.publish(goodbye, 4)
    outbox.publish(Passing(pub(b"pull", b"", b"55555")), 5)
    assert outbox.lost() == 1
    # What was not sent was not published.
    assert (outbox.out_msgs, outbox.out_bytes) == (4, 10)
    kept = publish(outbox, b"666666")
    assert outbox.unsent_publishes == 1
    assert outbox.waits(kept)
    assert sent(outbox) == goodbye + bytes(kept.frame)
    outbox.publish(goodbye, 4)
    assert outbox.discard() == 0


def test_withdrawing_leaves_no_trace() -> None:
    outbox = Outbox()
    one, two, three = (publish(outbox, data) for data in (b"1", b"22", b"333"))
    assert outbox.withdraw(two)
    assert not outbox.withdraw(two)
    assert not outbox.waits(Queued(bytes(bytearray(bytes(one.frame))), one.number, 1)), (
        "the very object, not one like it"
    )
    assert counted(outbox) == (len(bytes(one.frame)) + len(bytes(three.frame)), 2, 4)
    assert outbox.waits(three)
    assert sent(outbox) == bytes(one.frame) + bytes(three.frame)
    assert not outbox.withdraw(one)
    assert not outbox.withdraw(Queued(b"", 0, 0))
    assert counted(outbox) == (0, 2, 4)


def test_requests_that_overlap_leave_no_more_than_a_few_gaps() -> None:
    outbox = Outbox()
    first, before = publish(outbox), publish(outbox)
    looked = most = 0
    for _ in range(20_000):
        gone, before = before, publish(outbox)
        assert outbox.withdraw(gone)
        most = max(most, len(outbox.frames))
        looked += not outbox._numbers.gaps
    assert most <= 2 * FEW_GAPS + 2
    # Each closing looks at all, and is worth it: one for as many gaps as there are frames.
    assert looked <= 20_000 / FEW_GAPS
    assert outbox.waits(first)
    assert outbox.waits(before)
    assert outbox.out_msgs == 2
    assert sent(outbox) == bytes(first.frame) + bytes(before.frame)


def test_what_is_queued_behind_a_fence_waits_for_the_next_connection() -> None:
    outbox = Outbox()
    assert [outbox.sendable] == [False]
    before = [bytes(publish(outbox, b"%d" % n).frame) for n in range(3)]
    outbox.queue(PING)
    outbox.hold_back()
    behind = [bytes(publish(outbox, b"%d" % n).frame) for n in range(3, 6)]
    outbox.queue(b"SUB a 1\r\n")
    assert [outbox.sendable] == [True]
    assert sent(outbox, len(before[0])) == before[0]
    assert sent(outbox) == before[1] + before[2] + PING
    assert [outbox.sendable] == [False]
    assert (sent(outbox), outbox.lost(), sent(outbox)) == (b"", 0, b"".join(behind))


def test_what_is_discarded_gives_no_number_away_again() -> None:
    outbox = Outbox()
    first = publish(outbox)
    publish(outbox)
    outbox.queue(PING)
    assert (outbox.discard(), outbox.frames, *counted(outbox)) == (2, [], 0, 2, 2)
    later = publish(outbox)
    assert later.number == first.number + 3
    assert [outbox.waits(later), outbox.waits(first)] == [True, False]


class Queue(RuleBasedStateMachine):
    """The model knows each frame by itself; gaps are closed as soon as there are more of them than frames."""

    @initialize()
    def begin(self) -> None:
        self.few, room.FEW_GAPS = room.FEW_GAPS, 0
        self.outbox = Outbox()
        self.waiting: list[Queued] = []
        self.gone: list[Queued] = []
        self.count = 0
        self.fenced: set[Queued] | None = None

    def teardown(self) -> None:
        room.FEW_GAPS = self.few

    @rule(more=st.integers(1, 5))
    def queue(self, more: int) -> None:
        for _ in range(more):
            self.count += 1
            queued = publish(self.outbox, b"%d" % self.count)
            assert queued.number not in {each.number for each in self.waiting}
            self.waiting.append(queued)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 100), many=st.integers(1, 4))
    def withdraw(self, which: int, many: int) -> None:
        for queued in self.waiting[which % len(self.waiting) :][:many]:
            self.waiting.remove(queued)
            assert self.outbox.withdraw(queued)
            self.gone.append(queued)
            assert self.outbox._numbers.gaps * 2 <= len(self.outbox.frames)

    @rule(frames=st.integers(1, 3))
    def put_first(self, frames: int) -> None:
        self.outbox.put_first([b"SUB a 1\r\n"] * frames)

    @rule()
    def lose(self) -> None:
        assert self.outbox.lost() == 0
        assert not self.outbox._numbers.gaps
        self.fenced = None

    @rule(limit=st.integers(1, 100))
    def take(self, limit: int) -> None:
        batch = sent(self.outbox, limit)
        went = [queued for queued in self.waiting if bytes(queued.frame) in batch]
        assert self.fenced is None or self.fenced.issuperset(went)
        self._go(went)

    @precondition(lambda self: self.fenced is None)
    @rule()
    def fence(self) -> None:
        """What comes from now on waits for the next connection."""
        self.outbox.queue(PING)
        self.outbox.hold_back()
        self.fenced = set(self.waiting)

    @rule()
    def discard(self) -> None:
        assert self.outbox.discard() == len(self.waiting)
        self._go(self.waiting)

    @rule()
    def move(self) -> None:
        """A planned move takes what waits over to the other side."""
        other = Outbox()
        self.outbox.exchange(other)
        self.fenced = None
        frames = {bytes(queued.frame) for queued in self.waiting}
        assert [frame for frame in other.frames if frame in frames] == [bytes(queued.frame) for queued in self.waiting]
        assert other.bytes == sum(map(len, other.frames))
        self._go(self.waiting)

    def _go(self, went: list[Queued]) -> None:
        self.gone += went
        self.waiting = [queued for queued in self.waiting if queued not in went]

    @invariant()
    def numbers_are_true(self) -> None:
        outbox = self.outbox
        assert [frame for frame in outbox.frames if bytes(frame).startswith(b"PUB")] == [
            bytes(each.frame) for each in self.waiting
        ]
        assert all(map(outbox.waits, self.waiting))
        assert not any(map(outbox.waits, self.gone))
        assert outbox.bytes == sum(map(len, outbox.frames))
        assert outbox._numbers.gaps == outbox.frames.count(b"")
        assert outbox.frames[-1:] != [b""], "an outage full of requests that were withdrawn takes no room"
        if not outbox.sendable:
            assert not (self.waiting if self.fenced is None else self.fenced.intersection(self.waiting))


Queue.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestQueue = Queue.TestCase
