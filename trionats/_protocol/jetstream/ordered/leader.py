"""What the stream's leader says: which stream it is, and what a snapshot of it must have reached.

Strategy
    A consumer without replicas may be placed on a replica that lags, and then knows neither what the stream holds nor how much that
    is. And a stream of the same name need not be the same stream. So two things are asked of the stream's leader, each time
    *after* a consumer was made: when the stream was made, which is its identity, and which sequence is the last (`hear`), or the
    last that matches (`find`): the mark that must have been reached.

    A server outside a cluster has no replicas. Its consumers say so (their info names no cluster), and then nothing is asked as
    long as the first consumer lives: that one is younger than its stream, so a stream that is younger than it is another one
    (design 60).

Invariants
    * A mark never hides what is missing: it is the leader's last at a moment behind the making of the consumer.
    * Who may not ask (`mute`: for the stream's info; `blind`: for its messages) reads on, and is told once that nothing vouches
      for the end; nothing fails for it (design 59).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from trionats._protocol.jetstream.acks import count_of
from trionats._told.moments import read_moment

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class StreamSaid(NamedTuple):
    """What the info of a stream says: when it was made, its last sequence, whether it has replicas."""

    created: str
    last: int
    replicated: bool = False


def read_stream(info: Mapping[str, object]) -> StreamSaid | None:
    """Read a stream info.

    Args:
        info: The API's response.

    Returns:
        What it says, or None when it is no such info.
    """
    state, config, created = info.get("state"), info.get("config"), info.get("created")
    last = count_of(state.get("last_seq")) if isinstance(state, dict) else None
    if last is None or not isinstance(created, str):
        return None
    replicas = count_of(config.get("num_replicas")) if isinstance(config, dict) else None
    return StreamSaid(created, last, (replicas or 1) > 1)


class Leader:
    """What one reader knows from the leader of its stream."""

    def __init__(self) -> None:
        self.clustered = False
        # Who reads may not ask for the stream's info, or for its messages.
        self.mute = self.blind = False
        self.heard = False
        self._identity = ""
        self._made: datetime | None = None
        self._replicated = False
        self._mark = 0

    @property
    def known(self) -> bool:
        """Whether it was found out which stream it is."""
        return bool(self._identity)

    def consumer_made(self, info: Mapping[str, object]) -> None:
        """Tell that a consumer was made.

        Args:
            info: The API's response, a consumer info.
        """
        self.clustered = isinstance(info.get("cluster"), dict)
        if self._made is None:
            self._made = _moment(info.get("created"))

    def recognizes(self, said: StreamSaid) -> bool:
        """Say whether this is the stream that was read so far.

        Args:
            said: What the leader says now.
        """
        if self._identity:
            return said.created == self._identity
        made = _moment(said.created)
        return made is None or self._made is None or made <= self._made

    def hear(self, said: StreamSaid) -> None:
        """Take what the leader says of the stream that is read.

        Args:
            said: That.
        """
        self._identity, self._replicated = said.created, said.replicated
        if not self.heard:
            self.heard, self._mark = True, said.last

    def find(self, mark: int) -> None:
        """Take the last sequence that matches: what is stored up to there must have come.

        Args:
            mark: That sequence; 0 when nothing matches.
        """
        self._mark = mark

    def meet(self, said: StreamSaid) -> None:
        """Begin with another stream, which is read from now on.

        Args:
            said: What the leader says of it.
        """
        self._identity, self._made = said.created, None
        self.heard = False

    def reached(self, sequence: int) -> bool:
        """Say whether all that was stored has come with this sequence, as far as the leader is concerned.

        Args:
            sequence: Up to where was read.
        """
        return self.mute or self.blind or not self._replicated or sequence >= self._mark


def nanoseconds_of(text: object) -> int:
    """Read a time as the timestamps of messages are: nanoseconds.

    Args:
        text: What stands in a response.

    Returns:
        The time, cut to microseconds; 0 where it is none.
    """
    moment = _moment(text)
    return 0 if moment is None else (moment - _EPOCH) // _MICROSECOND * 1000


def _moment(text: object) -> datetime | None:
    try:
        return read_moment(text, UTC)
    except ValueError:
        return None
