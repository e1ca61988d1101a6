"""Where to resume: a stream in order, through one consumer of our own after another.

Strategy
    `Ordered` is told what came (`received`, `status`, `created`, ...) and asked what to do (`next`, `pull`); it never
    waits, sends or reads a clock. Whenever it is in doubt it resets: a fresh consumer, from where it is.

Invariants
    * The cursor moves when a message was handed over (`delivered`), never when it was merely seen.
    * Each consumer has a name of its own, and what comes from another one is ignored.
    * What is stored is counted as it comes, before anybody looks into it (`caught_up`).
    * Nothing is handed over from a second consumer before the leader has said that it is still the same stream.
    * Where the stream has replicas, the count is not believed: what is stored has come when the leader's mark is reached
      (`leader`).

What can go wrong
    Lost, doubled and late messages, silence, deleted consumers, lost connections, a replica that lags, a stream that is purged
    while it is read, restored from an older backup, made anew, or removed: each has its test.
"""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING, Final

from trionats import errors
from trionats._protocol.leader import Leader
from trionats._protocol.pulling import (
    ALL,
    NANOSECONDS,
    AckSubject,
    Action,
    Create,
    Delete,
    Ending,
    Fail,
    Find,
    Inspect,
    Look,
    Pull,
    Start,
    Wait,
    Window,
    backoff,
    parse_ack_subject,
    whole_number,
)
from trionats._protocol.refusals import Refusals, Verdict

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from trionats._protocol.leader import StreamSaid

_SECOND_LOOK_AFTER: Final = 0.25
# How often the end of a snapshot is put off because entries may have been overtaken by newer ones (see `_count`), and how
# often another consumer is asked whether it is the end (see `inspected`).
_ROUNDS: Final = 10
# How often the server may say that it has something and still give nothing.
_DOUBTS: Final = 3


class _Phase(enum.Enum):
    UNMADE = enum.auto()
    DOUBTFUL = enum.auto()
    READING = enum.auto()
    FAILED = enum.auto()


class Ordered:
    """The decisions of one ordered reader, over all the consumers that it goes through.

    Args:
        stream: The stream's name.
        prefix: The unique beginning of the consumers' names.
        rng: Where the jitter comes from.
        filter_subjects: What to read; all when empty.
        start: Where to begin.
        snapshot: Whether to find out when all that was stored at the beginning has come (`caught_up`).
        one_per_subject: Whether the stream holds one message of each subject at the most. A `last_per_subject` snapshot
            that got stuck then goes on by sequence instead of from the beginning.
        headers_only: Whether the payloads stay on the server.
        max_messages: The credit in messages: asked for, or handed over and not yet taken.
        max_bytes: The credit in bytes, counted as the server does.
        heartbeat: How often the server says that it is there; twice as long a silence is a reset.
        expires: How long the server keeps a request; at least twice the heartbeat.
        inactive_threshold: How long the server keeps a consumer that nobody asks.
        lazy: Whether the leader is asked for nothing before the end seems to be reached, since it seldom matters.
        restart: Whether a stream that was made anew is read from its beginning; else reading fails.
    """

    def __init__(
        self,
        stream: str,
        prefix: str,
        rng: random.Random,
        *,
        filter_subjects: Sequence[str] = (),
        start: Start = ALL,
        snapshot: bool = False,
        one_per_subject: bool = False,
        headers_only: bool = False,
        max_messages: int = 500,
        max_bytes: int = 8 * 1024 * 1024,
        heartbeat: float = 5.0,
        expires: float = 30.0,
        inactive_threshold: float = 30.0,
        lazy: bool = False,
        restart: bool = False,
    ) -> None:
        self.stream = stream
        self.name = ""
        # Without `last_per_subject` the place to resume is always known, and nobody asked for the end of the snapshot.
        self.caught_up = start.policy == "new" or not (snapshot or start.policy == "last_per_subject")
        self.failure: Exception | None = None
        # Why it does not get on at the moment.
        self.refusal: Exception | None = None
        self.resets = self.restarts = 0
        # (sequence, timestamp) of what was handed over. The timestamp is the highest so far: the clocks of two leaders
        # differ. 0 means that nothing was, and the sequence is the one before the first.
        self.cursor = (0, 0)
        self._prefix, self._serial, self._rng = prefix, 0, rng
        self._filters, self._start = tuple(filter_subjects), start
        self._fixed_config: dict[str, object] = {
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(inactive_threshold * NANOSECONDS),
        } | ({"headers_only": True} if headers_only else {})
        self._window = Window(max_messages, max_bytes, heartbeat=heartbeat, expires=expires, rng=rng)
        self._phase = _Phase.UNMADE
        self._lazy, self._restart = lazy, restart
        self._leader = Leader()
        self._refusals = Refusals(patient=restart)
        self._shortfalls = 0
        self._opening = False
        self._linked = True
        self._begun = False
        self._disturbed = False
        self._by_sequence = start.policy != "last_per_subject"
        self._one_per_subject = one_per_subject
        self._second_opinions = 0
        self._beginning = start
        self._not_before = -inf
        self._failures = 0
        self._deletes: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self._window.forget()
        self._consumer_sequence = self._seen = 0
        self._received = self._expected = self._rounds = self._found = 0
        self._empty = self._patient = self._stuck = False
        self._ended = self._asks = self._short = self._waits = False
        self._doubts = self._looks = 0

    # What to do

    @property
    def attention(self) -> bool:
        """Whether `next` has something to say that `pull` does not."""
        return self._asks or self._pauses

    @property
    def opening(self) -> bool:
        """Whether it is not known yet from where on messages are new."""
        return self._opening

    @property
    def next_event(self) -> float:
        """When silence has to be looked into, or becomes a reset."""
        return min(self._silent_after, self._window.unproven_after) if self._linked else inf

    @property
    def _silent_after(self) -> float:
        return self._window.silent_after if self._phase is _Phase.READING else inf

    @property
    def _pauses(self) -> bool:
        """Whether nothing is to be asked for before something else was done."""
        return (
            self._phase is not _Phase.READING
            or self._empty
            or self._ended
            or self._short
            or (self._stuck and self.caught_up)
        )

    def next(self, now: float) -> Action:
        """Say what to do now.

        An action that was not carried out, because whoever should have was cancelled, is said again. A `Create` must be
        answered by `create_failed` even then, since the server may have seen it.

        Returns:
            One thing to do.
        """
        if self.failure is not None:
            return Fail(self.failure)
        if not self._linked:
            return Wait(inf)
        if now >= self._silent_after:
            self._reset(now)
        if self._stuck and self.caught_up:
            self._move_on(now)
        if self._deletes:
            return Delete(self._deletes.pop())
        if self._phase is _Phase.READING:
            if now >= self._window.unproven_after:
                return self._window.prove(self.name)
            if self._empty:
                return Inspect(self.name)
            if self._asks:
                return Look()
            if self._short:
                return Find(self._filters or (">",))
            return self.pull(now) or Wait(self._window.next_event(now))
        if now < self._not_before:
            return Wait(self._not_before)
        return self._create() if self._phase is _Phase.UNMADE else Look()

    def pull(self, now: float) -> Pull | None:
        """Say what to ask for now, if anything.

        Returns:
            The request, which counts as sent.
        """
        if not self._linked or self._pauses:
            return None
        at_most = 0 if self.caught_up else self._expected - self._received
        pull = self._window.pull(self.name, now, at_most, patient=self._patient)
        if pull is not None:
            self._patient = False
        return pull

    def _create(self) -> Create:
        self._serial += 1
        self.name = f"{self._prefix}_{self._serial}"
        if self._begun and (self._by_sequence or self.caught_up):
            sequence, timestamp = self.cursor
            # The last one handed over is asked for again: its timestamp shows whether it still is the same stream.
            self._beginning = Start("by_start_sequence", sequence if timestamp else sequence + 1)
        config = {"name": self.name, **self._fixed_config, **self._beginning.config()}
        if len(self._filters) > 1:
            config["filter_subjects"] = list(self._filters)
        else:
            # `last_per_subject` without any filter is refused (10094).
            config["filter_subject"] = self._filters[0] if self._filters else ">"
        return Create(self.name, config)

    # What came of it

    def created(self, info: Mapping[str, object], now: float) -> None:
        """Tell that the consumer was created.

        Args:
            info: The server's answer, a consumer info.
        """
        self._expected, _, before = _counts(info)
        self._found = self._expected
        leader, first = self._leader, not self._begun
        leader.consumer_made(info)
        if first:
            self._begun = True
            # One before the first, for every policy: all that is needed to resume (measured, wire.md section 3).
            self.cursor = (before, 0)
            self._opening = leader.clustered and self._beginning.policy == "new"
        if first and not (leader.known or self._opening):
            self._phase = _Phase.READING
            self._asks = leader.clustered and not self._lazy and not self.caught_up
            self._begin_to_read()
            return
        # It may be another stream, or one that ends before the cursor, where the consumer would wait for a sequence that is
        # far away, in silence; and what is new to a replica that lags is not new.
        self._phase, self._not_before = _Phase.DOUBTFUL, now

    def create_failed(self, now: float, error: Exception | None = None) -> bool:
        """Tell that the consumer was not created, as far as is known.

        Args:
            error: What the server said, if it said anything.

        Returns:
            Whether somebody should be told.
        """
        self._reset(now)
        return self._refused(error)

    def inspected(self, name: str, info: Mapping[str, object], now: float) -> None:
        """Tell what the server says about the consumer.

        Args:
            name: The name that `Inspect` gave.
            info: The consumer info.
        """
        if not self._empty or name != self.name:
            return
        self._empty = False
        pending, sent, _ = _counts(info)
        left = pending + max(0, sent - self._consumer_sequence)
        self._doubts += 1
        # The server looks for a `last_per_subject` snapshot in a list that it made when it began, and stops at each entry
        # that is gone until something wakes it (2.15.1): it says 404 while it has more, and would sit on what is new.
        self._stuck = self._beginning.policy == "last_per_subject"
        # A write that comes while a consumer is being made is not told to it: its `pending` stays one too low for good
        # (2.15.1), and the info says nothing else. Only the count of a consumer that is made now is to be believed.
        in_doubt = self._disturbed or (self._received < self._expected and not self._waits)
        if not left and in_doubt and self._one_per_subject and self._second_opinions < _ROUNDS:
            self._second_opinions += 1
            self._by_sequence = self._disturbed = True
            self._move_on(now)
        elif not left:
            self._end()
        elif self._stuck and self._one_per_subject:
            self._by_sequence = self._disturbed = True
            self._move_on(now)
        elif self._doubts > _DOUBTS:
            # Again and again it has something and gives nothing: perhaps another consumer can have it.
            self._reset(now)
        else:
            # A request that waits a little may get past an entry that is gone.
            self._patient = self._received < self._expected
            self._expected = min(self._expected, self._received + left) if self._patient else self._received + left

    def inspect_failed(self, name: str, now: float) -> None:
        """Tell that nothing could be found out about the consumer.

        Args:
            name: The name that `Inspect` gave.
        """
        if name == self.name:
            self._reset(now)

    def looked(self, said: StreamSaid, now: float) -> None:
        """Tell what the leader says of the stream.

        Args:
            said: That.
        """
        if not (self._asks or self._phase is _Phase.DOUBTFUL):
            return
        leader = self._leader
        if not leader.recognizes(said):
            self._made_anew(said, now)
            return
        sequence, timestamp = self.cursor
        sought = self._start.policy == "by_start_sequence" and not timestamp
        if self._phase is _Phase.DOUBTFUL and said.last < sequence and not (self._opening or sought):
            # A leader that was just elected may be mistaken once.
            self._looks += 1
            self._not_before = now + _SECOND_LOOK_AFTER
            if self._looks > 1:
                self._regressed(f"its last sequence is {said.last}")
            return
        if self._opening and said.replicated:
            # What came before is not new, whatever the replica thinks that has the consumer.
            self.cursor = (max(sequence, said.last), 0)
        leader.hear(said)
        self._verified()

    def found(self, mark: int, now: float) -> None:
        """Tell the last sequence that matches, as the leader has it.

        Args:
            mark: That sequence; 0 when nothing matches.
        """
        if not self._short:
            return
        self._short = False
        self._leader.find(mark)
        if self._leader.reached(self.cursor[0]):
            self.caught_up = True
            return
        # The replica that has the consumer lags. Another consumer may be made on another one, at once the first time; in
        # between it is waited for.
        self._shortfalls += 1
        if self._shortfalls % 2:
            self._by_sequence = self._by_sequence or self._one_per_subject
            self._move_on(now)
        else:
            self._wait_for_more()

    def look_failed(self, now: float, error: Exception | None = None) -> bool:
        """Tell that nothing could be found out from the leader.

        Args:
            error: What the server said, if it said anything.

        Returns:
            Whether somebody should be told.
        """
        if not (self._asks or self._short or self._phase is _Phase.DOUBTFUL):
            return False
        if isinstance(error, errors.PermissionsViolationError):
            told, self._leader.mute = not self._leader.mute, True
            self._ended, self._short = self._ended or self._short, False
            self._verified()
            return told
        self._reset(now)
        return self._refused(error)

    # What came

    def received(self, reply: str, size: int, now: float) -> AckSubject | None:
        """Tell that a message came.

        Args:
            reply: Its reply subject.
            size: Its size as the server counts it: subject, reply subject, headers, payload.

        Returns:
            What the reply subject says, when the message is the next one and is to be handed over now; `delivered`,
            `dropped` or `refused` must follow. None when it is to be dropped.
        """
        ack = parse_ack_subject(reply)
        if ack is None or ack.consumer != self.name or self._phase is not _Phase.READING:
            return None
        if ack.consumer_sequence != self._consumer_sequence + 1:
            # The same one twice is harmless. Anything else is a gap, or a consumer that was set back (2.14).
            if ack.consumer_sequence > self._consumer_sequence or ack.sequence > self._seen:
                self._reset(now)
            return None
        self._consumer_sequence, self._seen = ack.consumer_sequence, ack.sequence
        self._window.arrived(size, now)
        self._doubts = 0
        sequence, timestamp = self.cursor
        # As long as nothing was handed over (no timestamp), nothing can have come again: what was last of its subject when
        # reading began may have been deleted since, and an older one be last now.
        if ack.sequence > sequence or not (timestamp or self._by_sequence):
            return ack
        if timestamp and ack.timestamp > timestamp:
            self._regressed(f"sequence {ack.sequence} came again and is younger")
        elif self._by_sequence and self._found == 1:
            # All that this consumer found when it was made is what was handed over last.
            self._end()
        else:
            self._count(ack)
        return None

    def delivered(self, ack: AckSubject, size: int) -> None:
        """Tell that the message was handed over, and takes up room until `taken`.

        Args:
            ack: What `received` gave.
            size: The message's size.
        """
        self._window.buffered(size)
        self.dropped(ack)

    def dropped(self, ack: AckSubject) -> None:
        """Tell that nobody wants the message: it is done with, and takes up no room.

        Args:
            ack: What `received` gave.
        """
        self.cursor = (ack.sequence, max(ack.timestamp, self.cursor[1]))
        self._failures = 0
        self._count(ack)

    def refused(self, now: float) -> None:
        """Tell that the message could not be handed over: it is asked for again."""
        self._reset(now)

    def taken(self, size: int) -> None:
        """Tell that a message that was handed over has made room again.

        Args:
            size: The message's size.
        """
        self._window.taken(size)

    def _count(self, ack: AckSubject) -> None:
        if self.caught_up:
            return
        self._received += 1
        # Writes overtake a snapshot: an entry that is written again leaves its place, comes later, and something newer
        # is counted for it. So when there is more by now, that is read too; and where `pending` was once not what is left
        # of the count, it is not believed, since it lags behind the writes. A writer that never rests could repeat this
        # for ever.
        if self._one_per_subject and self._received + ack.pending != self._expected:
            self._disturbed = True
        if self._received < self._expected:
            return
        if self._rounds >= _ROUNDS or not (ack.pending or self._disturbed):
            self._end(ack.pending)
            return
        self._rounds += 1
        self._disturbed = True
        self._expected += ack.pending
        self._empty = not ack.pending

    def status(self, number: int, code: int, description: str, headers: Mapping[str, str], now: float) -> None:
        """Tell that a status came.

        Args:
            number: Which request it answers.
            code: 100, 404, 409, ...
            description: Its text.
            headers: Its header fields.
        """
        if self._phase is not _Phase.READING:
            return
        match self._window.status(number, code, description, headers, now):
            case Ending.ALIVE:
                if whole_number(headers, "Nats-Last-Consumer") > self._consumer_sequence:
                    self._reset(now)
                else:
                    self._failures = 0
            case Ending.GONE:
                self._reset(now)
            case Ending.EMPTY:
                self._empty = not self.caught_up
            case Ending.MISTAKEN:
                text = f"stream '{self.stream}': the server does not understand our pull request: {description}"
                self._fail(errors.explained(errors.APIError, text))
            case _:
                pass

    def forbidden(self, error: Exception) -> None:
        """Tell that the server refuses to be asked for messages.

        Args:
            error: What says so.
        """
        self._fail(error)

    # What happened to the connection

    def link_lost(self) -> None:
        """Tell that the connection is lost: silence means nothing now, and nothing is asked."""
        self._linked = False

    def link_restored(self, now: float) -> None:
        """Tell that there is a connection again."""
        self._linked = True
        if self._phase is not _Phase.UNMADE:
            self._reset(now)

    def leave(self) -> list[str]:
        """Tell that nobody reads any more.

        Returns:
            The consumers that may be on the server, to be deleted.
        """
        names = [*self._deletes, *([self.name] if self.name else [])]
        self._deletes, self.name = [], ""
        self._linked = False
        return names

    # How it goes on

    def _begin_to_read(self) -> None:
        self._refusals.forget()
        self.refusal = None
        if not self._expected:
            self._end()

    def _verified(self) -> None:
        """Go on, now that the leader has said what it has to say."""
        self._asks = self._opening = False
        if self._phase is _Phase.DOUBTFUL:
            self._phase = _Phase.READING
            self._begin_to_read()
        elif self._ended:
            self._end()

    def _end(self, left: int = 0) -> None:
        """Be caught up, as far as the consumer is concerned; what the leader says is to be asked for or to be reached."""
        leader, self._ended = self._leader, False
        if self.caught_up or not leader.clustered:
            self.caught_up = True
        elif not (leader.heard or leader.mute):
            self._ended = self._asks = True
        elif leader.reached(self.cursor[0]):
            self.caught_up = True
        elif self._waits and self._received >= self._expected:
            # What was missing begins to come.
            self._wait_for_more(left)
        else:
            self._short = True

    def _wait_for_more(self, left: int = 0) -> None:
        self._waits = True
        self._patient = not left
        self._expected = self._received + max(left, 1)

    def _made_anew(self, said: StreamSaid, now: float) -> None:
        if not self._restart and (self.cursor[1] or self.caught_up):
            self._regressed(f"it was made anew at {said.created}")
            return
        if self.cursor[1] or self.caught_up:
            self.restarts += 1
        self._leader.meet(said)
        self._begun = self._disturbed = False
        self._second_opinions = self._shortfalls = 0
        # All that is in it is new to who wanted to know what is new.
        self._beginning = ALL if self._start.policy == "new" else self._start
        self._by_sequence = self._beginning.policy != "last_per_subject"
        self.caught_up = self.caught_up and self._by_sequence
        self.cursor = (0, 0)
        self._move_on(now)

    def _refused(self, error: Exception | None) -> bool:
        if error is None:
            return False
        self.refusal = error if isinstance(error, errors.APIError) else None
        verdict = self._refusals.judge(error)
        if verdict is Verdict.OVER:
            self._fail(error)
        return verdict is Verdict.TOLD

    def _reset(self, now: float) -> None:
        if self._phase is _Phase.FAILED:
            return
        if self.name:
            self._deletes.append(self.name)
            self.name = ""
        self.resets += 1
        self._forget()
        self._phase = _Phase.UNMADE
        self._not_before = now + backoff(self._failures, self._rng)
        self._failures += 1

    def _move_on(self, now: float) -> None:
        """Go on with another consumer, as a matter of course."""
        failures = self._failures
        self._reset(now)
        self._failures, self._not_before = failures, now

    def _regressed(self, why: str) -> None:
        text = f"stream '{self.stream}' went backwards: read up to sequence {self.cursor[0]}, but {why}"
        self._fail(errors.StreamRegressedError(text))

    def _fail(self, error: Exception) -> None:
        self._phase = _Phase.FAILED
        self.failure = error


def _counts(info: Mapping[str, object]) -> tuple[int, int, int]:
    delivered = info.get("delivered")
    if not isinstance(delivered, dict):
        delivered = {}
    return (
        whole_number(info, "num_pending"),
        whole_number(delivered, "consumer_seq"),
        whole_number(delivered, "stream_seq"),
    )
