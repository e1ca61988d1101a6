"""Whether all that was stored when reading began has come.

Strategy
    A consumer says how many messages it has when it is made (`begin`), and they are counted as they come (`count`). Three things
    make that count doubtful, and each has its own way out:

    Writes overtake the snapshot. An entry that is written again leaves its place and comes later, and the server's own count lags
    behind that, in a stream with history for good. So where there is more by now, that is read too, and where the numbers
    disagreed once, or something younger than the consumer was counted in the place of something else, the end takes a second
    opinion: another consumer, made at that moment, behind which nothing is found (design 42).

    That one reads by sequence from where reading is. Where a stream holds several messages of a subject, it would give old states
    beside the last, unless reading is past all that is older than the consumer; so until something younger came, another list
    of the last of each is read instead, of which what was seen is dropped.

    There is less than was counted, since entries were deleted or purged: the server then says that it has nothing (404), and the
    consumer's info says whether that is so (`inspects`).

    The consumer may stand on a replica that lags. So in a cluster the stream's leader is asked (`asks`), and where the stream has
    replicas and its last sequence was not reached, for the last one that matches (`finds`). A replica that has not come up to
    there is left for another consumer, or waited for, by turns (design 59).

Invariants
    * Once done, always done, but for a stream that was made anew.
    * While something is to be found out (`pauses`), nothing is asked for.
    * Second opinions and additions are bounded: a writer that never rests cannot put off the end for ever.
    * What is counted was received, whether or not anybody wanted it: the end never depends on an entry being readable.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trionats._protocol.jetstream.ordered.leader import Leader

# How often the end is put off because entries may have been overtaken by newer ones (see `count`), and how often
# another consumer is asked whether it is the end (see `inspected`).
_ROUNDS: Final = 10
# How often the server may say that it has something and still give nothing.
_DOUBTS: Final = 3
# How often in a row one is asked again at once that stopped at an entry that is gone, before another list is made without those;
# and how many such lists are made. Where writers are as quick as that, their writes take it past what is gone.
_HOLES: Final = 2
_LISTS: Final = 3


class Course(enum.Enum):
    """How reading goes on."""

    ON = enum.auto()
    """As it is."""
    ANOTHER = enum.auto()
    """With another consumer, as a matter of course."""
    RESET = enum.auto()
    """With another consumer, since this one is no good."""


class Snapshot:
    """The end of one reader's snapshot, over all the consumers that it goes through.

    Args:
        leader: What the stream's leader says.
        done: Whether there is nothing to wait for.
        one_per_subject: Whether the stream holds one message of each subject at the most.
        lasts: Whether it is of the last message of each subject, which others can replace while it is read.
    """

    def __init__(self, leader: Leader, *, done: bool, one_per_subject: bool, lasts: bool = False) -> None:
        self.done = done
        # What has to be found out before it goes on: from the consumer's info, the stream's info, the last that
        # matches.
        self.inspects = self.asks = self.finds = False
        self._leader, self._one_per_subject = leader, one_per_subject
        self._overtaken = one_per_subject or lasts
        self.begin_anew(done=done)

    def begin_anew(self, *, done: bool) -> None:
        """Forget what was read: another stream follows.

        Args:
            done: Whether there is nothing to wait for.
        """
        self.done = done
        self._disturbed = False
        self._second_opinions = self._shortfalls = self._lists = 0
        self.forget()

    def forget(self) -> None:
        """Forget what one consumer said: another one follows."""
        self.inspects = self.asks = self.finds = False
        self.patient = self._stuck = self._ended = self._waits = self._past = False
        self.received = self._expected = self._rounds = self._doubts = self._found = self._made = 0

    @property
    def pauses(self) -> bool:
        """Whether nothing is to be asked for before something was found out, or the consumer was left."""
        return self._stuck if self.done else self.inspects or self.finds or self._ended

    @property
    def left_behind(self) -> bool:
        """Whether the consumer would sit on what is new, now that it has given what was stored."""
        return self._stuck and self.done

    @property
    def missing(self) -> int:
        """How many messages are missing, as far as is known; 0 at the end."""
        return 0 if self.done else self._expected - self.received

    @property
    def only_the_last(self) -> bool:
        """Whether the consumer found one message when it was made."""
        return self._found == 1

    @property
    def goes_by_sequence(self) -> bool:
        """Whether another consumer can begin where reading is, and give nothing that was replaced before there was this one."""
        return self._one_per_subject or self._past

    def begin(self, expected: int, sequence: int, *, by_list: bool, made: int = 0) -> None:
        """Tell that a consumer is read from now on.

        Args:
            expected: How many messages it has.
            sequence: Up to where was read.
            by_list: Whether it is a `last_per_subject` consumer.
            made: When it was made, in nanoseconds; 0 where that is not known.
        """
        self._expected = self._found = expected
        self._made = made
        if by_list:
            # All that matters is in the list, and in what came after it.
            self._disturbed = False
        if not expected:
            self.end(sequence)

    def count(self, pending: int, sequence: int, timestamp: int) -> bool:
        """Tell that a message came and is done with.

        Args:
            pending: How many the server says to be left.
            sequence: Up to where was read.
            timestamp: When the message was stored.

        Returns:
            Whether as many have come as were expected, so that there may be something to do.
        """
        if self.done:
            return False
        self._doubts = 0
        self.received += 1
        # Writes overtake a snapshot: an entry that is written again leaves its place, comes later, and something newer
        # is counted for it. So when there is more by now, that is read too; and where `pending` was once not what is
        # left of the count, it is not believed, since it lags behind the writes. A writer that never rests could repeat
        # this for ever. What is younger than the consumer was not among what it had: it is counted in the place of something
        # that was overtaken, whatever the server says to be left.
        if 0 < self._made <= timestamp:
            self._past = True
        if self._overtaken and (self._past or self.received + pending != self._expected):
            self._disturbed = True
        if self.received < self._expected:
            return False
        tired = self._rounds >= _ROUNDS
        if not (pending or self._disturbed) or (tired and not self._may_ask_another):
            self.end(sequence)
            return True
        self._rounds += 1
        self._disturbed = True
        self._expected += pending
        self.inspects = tired or not pending
        return True

    @property
    def _may_ask_another(self) -> bool:
        return self._overtaken and self._second_opinions < _ROUNDS

    def nothing_left(self) -> None:
        """Tell that the server says to have nothing more: its info will tell whether that is so."""
        self.inspects = not self.done

    def inspected(self, left: int, sequence: int, *, by_list: bool) -> Course:
        """Tell how much the consumer has, in its own words.

        Args:
            left: That.
            sequence: Up to where was read.
            by_list: Whether it is a `last_per_subject` consumer.
        """
        self.inspects = False
        self._doubts += 1
        # The server looks for a `last_per_subject` snapshot in a list that it made when it began, and stops at each
        # entry that is gone until something wakes it (2.15.1): it says 404 while it has more, and would sit on what is
        # new.
        self._stuck = by_list
        # A write that comes while a consumer is being made is not told to it: its `pending` stays one too low for good
        # (2.15.1), and the info says nothing else. Only the count of a consumer that is made now is to be believed.
        in_doubt = self._disturbed or (self.received < self._expected and not self._waits)
        # After so many rounds another one is asked all the same: it has less to give than this one had.
        if (not left or self._rounds > _ROUNDS) and in_doubt and self._may_ask_another:
            self._second_opinions += 1
            self._disturbed = True
            return Course.ANOTHER
        if not left:
            self.end(sequence)
        elif by_list and self.goes_by_sequence:
            self._disturbed = True
            return Course.ANOTHER
        elif by_list and self._doubts <= _HOLES:
            # Being asked again wakes it, and takes it past one entry that is gone.
            self._expected = self.received + left
            self._disturbed = True
        elif by_list and self._lists < _LISTS:
            self._lists += 1
            return Course.ANOTHER
        elif self._doubts > _DOUBTS:
            # Again and again it has something and gives nothing: perhaps another consumer can have it.
            return Course.RESET
        else:
            # A request that waits a little may get past an entry that is gone.
            self.patient = self.received < self._expected
            self._expected = min(self._expected, self.received + left) if self.patient else self.received + left
        return Course.ON

    def end(self, sequence: int) -> None:
        """Tell that all has come, as far as the consumer is concerned. What the leader says is asked for, or must be reached.

        Args:
            sequence: Up to where was read.
        """
        leader, self._ended = self._leader, False
        if self.done or not leader.clustered:
            self.done = True
        elif not (leader.heard or leader.mute):
            self._ended = self.asks = True
        elif leader.reached(sequence):
            self.done = True
        elif self._waits and self.received >= self._expected:
            # What was missing begins to come.
            self._wait_for_more()
        else:
            self.finds = True

    def verified(self, sequence: int) -> None:
        """Tell that the leader has said what it has to say, or will not.

        Args:
            sequence: Up to where was read.
        """
        ended = self._ended or (self.finds and self._leader.blind)
        self.asks = self.finds = False
        if ended:
            self.end(sequence)

    def found(self, sequence: int) -> Course:
        """Tell that the leader has said which message is the last one that matches.

        Args:
            sequence: Up to where was read.
        """
        self.finds = False
        if self._leader.reached(sequence):
            self.done = True
            return Course.ON
        # The replica that has the consumer lags. Another consumer may be made on another one, at once the first time;
        # in between it is waited for.
        self._shortfalls += 1
        if self._shortfalls % 2:
            return Course.ANOTHER
        self._wait_for_more()
        return Course.ON

    def _wait_for_more(self) -> None:
        self._waits = self.patient = True
        self._expected = self.received + 1
