"""The frames that wait for the stream, in order, and how one of them is found again.

Strategy
    A frame is one object and whole, so half a frame cannot be queued. To queue one is to append it to `frames` and to
    add its length to `bytes`; the hottest path, a client's publish, does just that without a call (design 34). The writer
    takes what is there as one batch, and says when the batch is written.

    Who made a request keeps a `Queued` of its frame: as long as that waits, no server can have seen it, and it can be
    taken back. A frame's number says how many frames were queued before it. It finds the frame in constant time, or, where
    gaps were closed in front of it, by halving. A frame that is taken back leaves a gap, so that the numbers of those behind
    it stay true; once there are more gaps than frames they are closed, and what stays has its number written down.

Invariants
    * What was taken is never put back: it may or may not have arrived, and `lost` counts it (design 13).
    * What is put in front, and what goes, changes nobody's number. No number is given twice.
    * What counts as waiting or lost are the publishes that a program asked for, not our own (`commands.Aside`, design 48).
    * Disconnected, only publishes wait here: whatever else there is to say is known from elsewhere, and said anew.
    * Behind `hold_back`, nothing that is queued goes to the connection that there is.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import chain
from typing import TYPE_CHECKING

from trionats._protocol import commands
from trionats._protocol.commands import CRLF, LargeFrame, Passing, is_programs, is_publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trionats._protocol.commands import Frame

__all__ = ["FEW_GAPS", "Outbox", "Queued"]

#: Below this many gaps it is not worth closing them.
FEW_GAPS = 64


class Queued:
    """One frame that was queued: what `Outbox.waits` and `Outbox.withdraw` find it by."""

    __slots__ = ("frame", "number", "size")

    def __init__(self, frame: Frame, number: int, size: int) -> None:
        self.frame = frame
        self.number = number
        self.size = size


class Outbox:
    """What one engine has to say.

    Attributes:
        frames: What waits, b"" where a frame was taken back.
        bytes: How much that is.
        out_bytes: Headers and payloads of all that was published.
        oversized: A program's publishes that were dropped because a server takes less than the last one; whoever tells it
            sets it to 0.
    """

    __slots__ = ("_last", "_numbers", "_sending", "_unpublished", "bytes", "frames", "out_bytes", "oversized")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.bytes = 0
        self.out_bytes = 0
        self.oversized = 0
        self._sending: list[Frame] = []
        self._numbers = _Numbers()
        # How many numbers are not those of publishes, or of such as were taken back.
        self._unpublished = 0
        # The number of the last frame that this connection is to take; None for no end.
        self._last: int | None = None

    # What comes in.

    def queue(self, frame: Frame) -> None:
        """Put one whole frame that is no publish behind the others."""
        self.frames.append(frame)
        self.bytes += len(frame)
        self._unpublished += 1

    def publish(self, frame: Frame, size: int) -> None:
        """Put one whole PUB or HPUB behind the others, and count it.

        Args:
            frame: The frame.
            size: What counts towards `max_payload`: headers and payload, in bytes.
        """
        self.frames.append(frame)
        self.bytes += len(frame)
        self.out_bytes += size

    def publish_tracked(self, frame: Frame, size: int) -> Queued:
        """Publish, as above, what may have to be found again."""
        frames = self.frames
        frames.append(frame)
        self.bytes += len(frame)
        self.out_bytes += size
        return Queued(frame, self._numbers.taken + len(frames), size)

    def put_first(self, frames: Sequence[Frame]) -> None:
        """Put whole frames that are no publishes in front of the others."""
        self.frames[:0] = frames
        self._numbers.lengthened(len(frames))
        self.bytes += sum(map(len, frames))

    def hold_back(self) -> None:
        """Let what is queued from now on wait for the next connection."""
        self._last = self._newest

    # What became of it.

    @property
    def out_msgs(self) -> int:
        """How many messages were published."""
        return self._newest - self._unpublished

    @property
    def _newest(self) -> int:
        return self._numbers.taken + len(self.frames)

    def waits(self, queued: Queued) -> bool:
        """Say whether a frame still waits, so that no server can have seen it."""
        place = self._numbers.up_to(queued.number) - 1
        # The very object: one like it may have been queued since.
        return 0 <= place < len(self.frames) and self.frames[place] is queued.frame

    def withdraw(self, queued: Queued) -> bool:
        """Take a publish back if it still waits, as if it had not been.

        Returns:
            Whether it will not be sent.
        """
        if not self.waits(queued):
            return False
        self._make_gap(self._numbers.up_to(queued.number) - 1)
        self.out_bytes -= queued.size
        self._unpublished += 1
        # Without this an outage would fill the outbox with the gaps that requests leave when they time out.
        frames = self.frames
        while frames and not frames[-1]:
            frames.pop()
            self._numbers.shortened(len(frames))
            self._unpublished -= 1
        if self._numbers.too_many_gaps(len(frames)):
            self._close_gaps()
        return True

    @property
    def unsent_publishes(self) -> int:
        """How many of a program's publishes were not given to the stream yet, as far as is known."""
        return sum(map(is_programs, chain(self._sending, self.frames)))

    @property
    def holds_publishes(self) -> bool:
        """Whether there are any."""
        return any(map(is_programs, chain(self._sending, self.frames)))

    # What goes out.

    @property
    def sendable(self) -> bool:
        """Whether something waits that this connection is to take."""
        return bool(self.frames) and (self._last is None or self._numbers.up_to(self._last) > 0)

    def take(self, limit: int) -> bytes | list[bytes | memoryview]:
        """Take a batch of whole frames for the stream; call `sent` once it is written.

        Args:
            limit: Stop before the batch grows over this many bytes; one frame always comes.

        Returns:
            The batch, empty when there is nothing to send; in pieces where large payloads are in it, which are not copied.
        """
        frames = self.frames
        if self._last is None and (self.bytes <= limit or len(frames) == 1):
            self.frames = []
            self.bytes = 0
            self._numbers.emptied(len(frames))
            batch = frames
        else:
            batch = self._first_frames(limit)
        self._sending = batch
        if len(batch) == 1:
            return list(batch[0].pieces) if isinstance(batch[0], LargeFrame) else batch[0]
        try:
            return b"".join(batch)  # type: ignore[arg-type]
        except TypeError:
            return _pieces(batch)

    def sent(self) -> None:
        """Take note that the batch taken last was written whole."""
        self._sending = []

    def lost(self) -> int:
        """Keep what the next connection is to hear: publishes, but not those that only meant something to this one.

        Returns:
            How many of a program's publishes were being sent, and are not sent again.
        """
        in_doubt = sum(map(is_programs, self._sending))
        self._sending = []
        self._last = None
        passing = [frame for frame in self.frames if frame.__class__ is Passing]
        self._unpublished += len(passing)
        self.out_bytes -= sum(map(commands.publish_size, passing))
        self.frames = [frame if is_publish(frame) and frame.__class__ is not Passing else b"" for frame in self.frames]
        self.bytes = sum(map(len, self.frames))
        self._close_gaps()
        return in_doubt

    def discard(self) -> int:
        """Give up all that waits.

        Returns:
            How many of a program's publishes there were.
        """
        publishes = sum(map(is_programs, self.frames))
        self._empty()
        return publishes

    def drop_oversized(self, limit: int) -> None:
        """Drop the publishes that wait and are more than a server takes: sent, they would end the connection."""
        for place, frame in enumerate(self.frames):
            if len(frame) > limit and is_publish(frame) and commands.publish_size(frame) > limit:
                self._make_gap(place)
                self.oversized += is_programs(frame)

    def exchange(self, other: Outbox) -> None:
        """Exchange connections with another outbox (design 66): what waits goes with the connection that it was meant for.

        What waited here counts as taken from now on, since a server is about to see it; what `other` held goes in front.
        """
        mine, theirs = self.frames, other.frames
        self._sending, other._sending = other._sending, self._sending
        self._last = None
        self._empty()
        other.frames, other.bytes = mine, sum(map(len, mine))
        self.put_first(theirs)

    # Inside.

    def _empty(self) -> None:
        self._numbers.emptied(len(self.frames))
        self.frames = []
        self.bytes = 0

    def _first_frames(self, limit: int) -> list[Frame]:
        frames = self.frames
        most = len(frames) if self._last is None else min(self._numbers.up_to(self._last), len(frames))
        size = count = 0
        while count < most and (not count or size + len(frames[count]) <= limit):
            size += len(frames[count])
            count += 1
        batch = frames[:count]
        del frames[:count]
        self._numbers.went(count, batch.count(b"") if self._numbers.gaps else 0)
        self.bytes -= size
        return batch

    def _make_gap(self, place: int) -> None:
        self.bytes -= len(self.frames[place])
        self.frames[place] = b""
        self._numbers.gaps += 1

    def _close_gaps(self) -> None:
        kept = [place for place, frame in enumerate(self.frames) if frame]
        self._numbers.closed(kept, len(self.frames))
        self.frames = [self.frames[place] for place in kept]


def _pieces(frames: Iterable[Frame]) -> list[bytes | memoryview]:
    """Give large payloads as they are, and all that lies between two of them joined."""
    pieces: list[bytes | memoryview] = []
    between: list[bytes] = []
    for frame in frames:
        if isinstance(frame, LargeFrame):
            pieces += b"".join((*between, frame.head)), frame.payload
            between = [CRLF]
        else:
            between.append(frame)
    return [*pieces, b"".join(between)]


class _Numbers:
    """Which number stands at which place.

    Attributes:
        taken: How many numbers lie before those that are counted through.
        gaps: How many places are empty.
    """

    __slots__ = ("_written", "gaps", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.gaps = 0
        # The numbers of the first places, where they cannot be counted through.
        self._written: list[int] = []

    def at(self, place: int) -> int:
        """Say which number stands at a place."""
        return self._written[place] if place < len(self._written) else self.taken + place + 1

    def up_to(self, number: int) -> int:
        """Say how many places have this number or a lower one; if it stands anywhere, then at the last of them."""
        count = number - self.taken
        return count if count >= len(self._written) else bisect_right(self._written, number)

    def too_many_gaps(self, length: int) -> bool:
        return self.gaps > FEW_GAPS and self.gaps * 2 > length

    # What happened to the frames.

    def shortened(self, length: int) -> None:
        """An empty place at the end is gone."""
        self.gaps -= 1
        del self._written[length:]

    def lengthened(self, places: int) -> None:
        """Something was put in front, whose numbers nobody asks for."""
        if self._written:
            first = self._written[0]
            self._written[:0] = range(first - places, first)
        self.taken -= places

    def went(self, places: int, gaps: int) -> None:
        """The first places went, so many of them empty."""
        self.taken += places
        self.gaps -= gaps
        del self._written[:places]

    def emptied(self, places: int) -> None:
        """All of them went."""
        self.taken += places
        if self.gaps or self._written:
            self.gaps = 0
            self._written = []

    def closed(self, kept: Sequence[int], places: int) -> None:
        """Of so many places, only those that are kept are left."""
        self._written = list(map(self.at, kept))
        self.taken += places - len(kept)
        self.gaps = 0
