"""Where to resume: a stream in order, through one consumer of our own after another.

Strategy
    `Ordered` is told what came (`received`, `status`, `created`, ...) and asked what to do (`next`, `pull`); it never waits, sends
    or reads a clock. Whenever it is in doubt it resets: a fresh consumer, from where it is. Three parts decide with it: `Window`
    how much to ask for, `Leader` which stream it is and what the leader has of it, `Snapshot` when all has come that was stored.

States
    UNMADE: there is no consumer. `next` says `Create`, not before a pause that grows with the failures in a row; `created` leads
    to DOUBTFUL or READING, `create_failed` back here.

    DOUBTFUL: the consumer is made, and the leader has not said yet whether this still is the stream that was read (design 60), or
    from where on messages are new. `next` says `Look`; `looked` leads to READING, to FAILED where the stream went backwards
    (after a second look, since a leader that was just elected may be mistaken once), or to UNMADE where it was made anew and is
    read from its beginning. The first consumer needs no such proof, and reading begins while the leader is asked.

    READING: messages are handed over. A gap, silence, a deleted consumer and a returned connection lead back to UNMADE.

    FAILED: `next` says `Fail`, until somebody else reads.

One reader after another
    Several may read one after the other with one `Ordered`, each from where the one before was left: `leave`, `rewind` to what
    that one really got (what waited in its channel comes again), and `resume`, with a window of its own. Who is to resume
    at once may keep the consumer, if that stands exactly where reading does.

The end of a snapshot
    The consumer says how many messages it has when it is made. They are counted here as they come, before anybody looks into them
    (design 10). At that count the snapshot ends, unless `Snapshot` has reason to doubt the count or `Leader` has not been
    reached; then it says what has to be found out (`inspects`, `asks`, `finds`), and nothing is asked for meanwhile.

Invariants
    * The cursor moves when a message was handed over (`delivered`) or is wanted by nobody (`dropped`), never when it was merely
      seen (design 11).
    * Each consumer has a name of its own, and what comes from another one is ignored.
    * What was not handed over is asked for again; what was, is dropped when it comes again, by its sequence and timestamp.
    * Nothing is handed over from a second consumer before the leader has said that it is the same stream, or that it may not say.
    * Each consumer that may be on the server is deleted: by `Delete`, or by who leaves.

What can go wrong
    Lost, doubled and late messages, silence, deleted consumers, lost connections, a replica that lags (design 59), a stream that is
    purged while it is read, restored from an older backup, made anew, or removed, requests that are refused for a while or for
    good (design 62): each has its test.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from trionats import errors
from trionats._protocol.jetstream.acks import AckSubject, parse_ack_subject, whole_number
from trionats._protocol.jetstream.actions import ALL, Action, Create, Delete, Fail, Find, Inspect, Look, Start, Wait
from trionats._protocol.jetstream.ordered.leader import Leader, nanoseconds_of
from trionats._protocol.jetstream.ordered.snapshot import Course, Snapshot
from trionats._protocol.jetstream.pull import Ending, Pull, Window
from trionats._protocol.jetstream.refusals import Refusals, Retry, backoff
from trionats._told.moments import NANOSECONDS

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from trionats._protocol.jetstream.ordered.leader import StreamSaid

__all__ = ["Ordered"]

_SECOND_LOOK_AFTER: Final = 0.25
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


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
        more: What the consumers' configurations say besides.
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
        more: Mapping[str, object] = _NOTHING,
    ) -> None:
        self.stream = stream
        self.name = ""
        self.failure: Exception | None = None
        # Why it does not get on at the moment.
        self.refusal: Exception | None = None
        self.resets = self.restarts = 0
        # (sequence, timestamp) of what was handed over. The timestamp is the highest so far: the clocks of two leaders
        # differ. 0 means that nothing was, and the sequence is the one before the first, which `origin` keeps.
        self.cursor, self.origin = (0, 0), 0
        self._prefix, self._serial, self._rng = prefix, 0, rng
        self._filters, self._start = tuple(filter_subjects), start
        self._fixed_config: dict[str, object] = {
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(inactive_threshold * NANOSECONDS),
            **({"headers_only": True} if headers_only else {}),
            **more,
        }
        self._window = Window(max_messages, max_bytes, heartbeat=heartbeat, expires=expires, rng=rng)
        self._phase = _Phase.UNMADE
        self._lazy, self._restart = lazy, restart
        self._leader = Leader()
        # Without `last_per_subject` the place to resume is always known, and nobody asked for the end of the snapshot.
        done = start.policy == "new" or not (snapshot or start.policy == "last_per_subject")
        lasts = start.policy == "last_per_subject"
        self._snapshot = Snapshot(self._leader, done=done, one_per_subject=one_per_subject, lasts=lasts)
        self._refusals = Refusals(patient=restart)
        # Counted apart: each time it was refused, a consumer is granted before it is asked again.
        self._end_refusals = Refusals(patient=restart)
        self._opening = False
        self._linked = True
        self._begun = False
        self._by_sequence = start.policy != "last_per_subject"
        self._beginning = start
        self._not_before = -inf
        self._failures = 0
        self._deletes: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self._window.forget()
        self._snapshot.forget()
        self._consumer_sequence = self._seen = self._pending = self._looks = self._made = 0

    # What to do

    @property
    def caught_up(self) -> bool:
        """Whether all that was stored when reading began was handed over."""
        return self._snapshot.done

    @property
    def attention(self) -> bool:
        """Whether `next` has something to say that `pull` does not."""
        return self._pauses or self._snapshot.asks

    @property
    def reading(self) -> bool:
        """Whether there is a consumer, and messages are handed over."""
        return self._phase is _Phase.READING

    @property
    def opening(self) -> bool:
        """Whether it is not known yet from where on messages are new."""
        return self._opening

    @property
    def next_event(self) -> float:
        """When silence has to be looked into, or becomes a reset."""
        return self._window.listen_until if self._linked and self._phase is _Phase.READING else inf

    @property
    def _by_list(self) -> bool:
        """Whether the server may be walking a list for the consumer: it does unless the stream keeps one message of each subject."""
        return self._beginning.policy == "last_per_subject"

    @property
    def _pauses(self) -> bool:
        """Whether nothing is to be asked for before something else was done."""
        return self._phase is not _Phase.READING or self._snapshot.pauses

    def next(self, now: float) -> Action:
        """Say what to do now.

        An action that was not carried out, because whoever should have was cancelled, is said again. A `Create` must be
        followed by `create_failed` even then, since the server may have seen it.

        Returns:
            One thing to do.
        """
        if self.failure is not None:
            return Fail(self.failure)
        if not self._linked:
            return Wait(inf)
        if self._phase is _Phase.READING and now >= self._window.silent_after:
            self._reset(now)
        snapshot = self._snapshot
        if snapshot.left_behind:
            self._move_on(now)
        if self._deletes:
            return Delete(self._deletes.pop())
        if self._phase is _Phase.READING:
            if now >= self._window.unproven_after:
                return self._window.prove(self.name)
            if snapshot.inspects:
                return Inspect(self.name)
            if snapshot.asks:
                return Look()
            if snapshot.finds:
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
        snapshot = self._snapshot
        if not self._linked or self._phase is not _Phase.READING or snapshot.pauses:
            return None
        pull = self._window.pull(self.name, now, snapshot.missing, patient=snapshot.patient)
        if pull is not None:
            snapshot.patient = False
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
        elif self._filters:
            config["filter_subject"] = self._filters[0]
        elif self._start.policy == "last_per_subject":
            # Without any filter it is refused (10094). It stays: the filter stands in the subject that has to be permitted.
            config["filter_subject"] = ">"
        return Create(self.name, config)

    # What came of it

    def created(self, info: Mapping[str, object], now: float) -> None:
        """Tell that the consumer was created.

        Args:
            info: The API's response, a consumer info.
        """
        self._pending, _, before = _counts(info)
        self._made = nanoseconds_of(info.get("created"))
        leader, first = self._leader, not self._begun
        leader.consumer_made(info)
        if first:
            self._begun = True
            # One before the first, for every policy: all that is needed to resume (measured).
            self.cursor, self.origin = (before, 0), before
            resumes = self._beginning.resumes
            # Of one that resumes: whether there is such a sequence at all.
            self._opening = resumes or (leader.clustered and self._beginning.policy == "new")
            if resumes and before >= self._beginning.sequence:
                self._gone(before + 1)
                return
        if leader.mute or (first and not (leader.known or self._opening)):
            self._snapshot.asks = leader.clustered and not (leader.mute or self._lazy or self.caught_up)
            self._begin_to_read()
            return
        # It may be another stream, or one that ends before the cursor, where the consumer would wait for a sequence
        # that is far away, in silence; and what is new to a replica that lags is not new.
        self._phase, self._not_before = _Phase.DOUBTFUL, now

    def create_failed(self, now: float, error: Exception | None = None) -> bool:
        """Tell that the consumer was not created, as far as is known.

        Args:
            error: What the server said, if it said anything.

        Returns:
            Whether somebody should be told.
        """
        self._reset(now)
        return self._refused(error, self._refusals)

    def inspected(self, name: str, info: Mapping[str, object], now: float) -> None:
        """Tell what the server says about the consumer.

        Args:
            name: The name that `Inspect` gave.
            info: The consumer info.
        """
        if not self._snapshot.inspects or name != self.name:
            return
        pending, sent, _ = _counts(info)
        left = pending + max(0, sent - self._consumer_sequence)
        self._take(self._snapshot.inspected(left, self.cursor[0], by_list=self._by_list), now)

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
        if not (self._snapshot.asks or self._phase is _Phase.DOUBTFUL):
            return
        leader = self._leader
        if not leader.recognizes(said):
            self._made_anew(said, now)
            return
        sequence, timestamp = self.cursor
        waits = self._opening or (self._start.policy == "by_start_sequence" and not timestamp)
        if self._phase is _Phase.DOUBTFUL and said.last < sequence and (self._start.resumes or not waits):
            # A leader that was just elected may be mistaken once.
            self._looks += 1
            self._not_before = now + _SECOND_LOOK_AFTER
            if self._looks > 1:
                self._regressed(f"its last sequence is {said.last}")
            return
        if self._opening and said.replicated and not self._start.resumes:
            # What came before is not new, whatever the replica thinks that has the consumer.
            self.origin = max(sequence, said.last)
            self.cursor = (self.origin, 0)
        leader.hear(said)
        self._verified()

    def found(self, mark: int, now: float) -> None:
        """Tell the last sequence that matches, as the leader has it.

        Args:
            mark: That sequence; 0 when nothing matches.
        """
        if self._snapshot.finds:
            self._end_refusals.forget()
            self._leader.find(mark)
            self._take(self._snapshot.found(self.cursor[0]), now)

    def look_failed(self, now: float, error: Exception | None = None) -> bool:
        """Tell that nothing could be found out from the leader.

        Args:
            error: What the server said, if it said anything.

        Returns:
            Whether somebody should be told.
        """
        snapshot, leader = self._snapshot, self._leader
        if not (snapshot.asks or snapshot.finds or self._phase is _Phase.DOUBTFUL):
            return False
        if isinstance(error, errors.PermissionsViolationError):
            leader.blind = leader.blind or snapshot.finds
            leader.mute = leader.mute or not snapshot.finds
            self._verified()
            return True
        refusals = self._end_refusals if snapshot.finds else self._refusals
        self._reset(now)
        return self._refused(error, refusals)

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
        place, consumer_place = ack.sequence, ack.consumer_sequence
        if consumer_place != self._consumer_sequence + 1:
            # The same one twice is harmless. Anything else is a gap, or a consumer that was set back (2.14).
            if consumer_place > self._consumer_sequence or place > self._seen:
                self._reset(now)
            return None
        self._consumer_sequence, self._seen = consumer_place, place
        self._window.arrived(size, now)
        sequence, timestamp = self.cursor
        # As long as nothing was handed over (no timestamp), nothing can have come again: what was last of its subject when
        # reading began may have been deleted since, and an older one be last now.
        if place > sequence or not (timestamp or self._by_sequence):
            return ack
        if timestamp and ack.timestamp > timestamp:
            self._regressed(f"sequence {place} came again and is younger")
        elif self._by_sequence and self._snapshot.only_the_last:
            # All that this consumer found when it was made is what was handed over last.
            self._snapshot.end(sequence)
        else:
            self._snapshot.count(ack.pending, sequence, ack.timestamp)
        return None

    def delivered(self, ack: AckSubject, size: int) -> bool:
        """Tell that the message was handed over, and takes up room until `taken`.

        Args:
            ack: What `received` gave.
            size: The message's size.

        Returns:
            Whether there may be something to do; not in the usual case, that others were asked for and have not come.
        """
        self._window.buffered(size)
        return self.dropped(ack)

    def dropped(self, ack: AckSubject) -> bool:
        """Tell that nobody wants the message: it is done with, and takes up no room.

        Args:
            ack: What `received` gave.

        Returns:
            As for `delivered`.
        """
        sequence, timestamp = ack.sequence, ack.timestamp
        latest = self.cursor[1]
        self.cursor = (sequence, max(latest, timestamp))
        self._failures = 0
        return self._snapshot.count(ack.pending, sequence, timestamp) or self._window.asked <= 0

    def refused(self, now: float) -> None:
        """Tell that the message could not be handed over: it is asked for again."""
        self._reset(now)

    def taken(self, size: int, messages: int = 1) -> bool:
        """Tell that messages that were handed over have made room again.

        Args:
            size: Their sizes, together.
            messages: How many they are.

        Returns:
            Whether there may be enough room by now to ask for more.
        """
        window = self._window
        # Near the end of what was stored, one request follows the other.
        return window.taken(size, messages) and (window.asked <= 0 or window.overlaps(self._snapshot.missing))

    def status(self, number: int, code: int, description: str, headers: Mapping[str, str], now: float) -> None:
        """Tell that a status came.

        Args:
            number: Which request it is about.
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
                self._snapshot.nothing_left()
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

    def connection_lost(self) -> None:
        """Tell that the connection is lost: silence means nothing now, and nothing is asked."""
        self._linked = False

    def connection_restored(self, now: float) -> None:
        """Tell that there is a connection again."""
        self._linked = True
        if self._phase is not _Phase.UNMADE:
            self._reset(now)

    def leave(self, *, keep: bool = False) -> list[str]:
        """Tell that nobody reads any more.

        Args:
            keep: Keep the consumer, if it has given nothing that has to come again, and owes nothing.

        Returns:
            The consumers that may be on the server, to be deleted.
        """
        clean = self._phase is _Phase.READING and not self._window.asked and self._seen <= self.cursor[0]
        names = self._deletes
        if self.name and not (keep and clean and self._linked):
            names.append(self.name)
            self.name = ""
        self._deletes, self._linked = [], False
        return names

    def rewind(self, sequence: int, *, caught_up: bool) -> None:
        """Tell up to where a reader really came; what is behind that is to come again.

        Args:
            sequence: The last message that it got; `origin` where it got none.
            caught_up: Whether it got all that was stored when reading began.
        """
        if sequence == self.cursor[0]:
            return
        # The timestamp may be that of a later one. That hides nothing: those of another stream are later still.
        self.cursor = (sequence, self.cursor[1] if sequence > self.origin else 0)
        if not caught_up and self._start.policy == "last_per_subject":
            self._by_sequence, self._beginning = False, self._start
            self._snapshot.begin_anew(done=False)

    def resume(self, window: Window) -> None:
        """Tell that somebody reads again, after `leave`: whatever ended the one before, it is tried anew.

        Args:
            window: The new reader's credit.
        """
        self._window, self._linked = window, True
        window.by_list = self._by_list
        self.failure = self.refusal = None
        self._refusals.forget()
        self._end_refusals.forget()
        self._failures, self._not_before = 0, -inf
        if not self.name:
            self._forget()
            self._phase = _Phase.UNMADE

    # How it goes on

    def _begin_to_read(self) -> None:
        self._phase = _Phase.READING
        self._refusals.forget()
        self.refusal = None
        self._window.by_list = self._by_list
        self._snapshot.begin(self._pending, self.cursor[0], by_list=self._by_list, made=self._made)

    def _verified(self) -> None:
        """Go on, now that the leader has said what it has to say."""
        self._opening = False
        self._snapshot.verified(self.cursor[0])
        if self._phase is _Phase.DOUBTFUL:
            self._begin_to_read()

    def _take(self, course: Course, now: float) -> None:
        if course is Course.ANOTHER:
            self._by_sequence = self._by_sequence or self._snapshot.goes_by_sequence
            self._move_on(now)
        elif course is Course.RESET:
            self._reset(now)

    def _made_anew(self, said: StreamSaid, now: float) -> None:
        read_before = bool(self.cursor[1]) or self.caught_up or self._start.resumes
        if read_before and (not self._restart or (self._opening and self._start.resumes)):
            self._regressed(f"it was made anew at {said.created}")
            return
        if read_before:
            self.restarts += 1
        self._leader.meet(said)
        self._begun = False
        # All that is in it is new to who wanted to know what is new.
        self._beginning = ALL if self._start.policy == "new" or self._start.resumes else self._start
        self._by_sequence = self._beginning.policy != "last_per_subject"
        self._snapshot.begin_anew(done=self.caught_up and self._by_sequence)
        self.cursor, self.origin = (0, 0), 0
        self._move_on(now)

    def _refused(self, error: Exception | None, refusals: Refusals) -> bool:
        if error is None:
            return False
        self.refusal = error if isinstance(error, errors.APIError) else None
        retry = refusals.judge(error)
        if retry is Retry.NEVER:
            self._fail(error)
        return retry is Retry.AND_TELL

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

    def _gone(self, first: int) -> None:
        revision = self._start.sequence
        text = f"stream '{self.stream}': revision {revision} is gone: what is stored begins with {first}"
        self._fail(errors.explained(errors.RevisionGoneError, text, revision=revision, first=first))

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
