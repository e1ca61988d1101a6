"""What lists and watchers have to know of a store, whoever's class it is: where its entries are, and how each is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from trionats._jetstream.jitter import JITTER
from trionats._jetstream.ordered.source import OrderedSource
from trionats._protocol.jetstream.ordered.resuming import Ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api
    from trionats._jetstream.ordered.source import Sink
    from trionats._protocol.jetstream.acks import AckSubject
    from trionats._protocol.jetstream.actions import Start

__all__ = ["MAX_MESSAGES", "Entries"]

T = TypeVar("T")
#: How many messages, and how many bytes of them, are asked for, or handed over and not yet taken, at the most.
MAX_MESSAGES: Final = 1000
MAX_BYTES: Final = 8 * 1024 * 1024


@final
@dataclass(frozen=True, slots=True)
class Entries(Generic[T]):
    """The entries of a store.

    Attributes:
        store: The store, for people: "object store 'b'".
        jetstream: Where its stream is.
        stream: The stream that holds it.
        patterns: What the subjects of its entries match, of all that the stream may hold.
        read: Makes an entry of a message; None for what is to be left out. It does not raise.
        key: What two states of one entry have in common.
        one_per_subject: Whether an entry replaces the one before in the stream.
        headers_only: Whether values are left on the server.
    """

    store: str
    jetstream: Api[Messaging]
    stream: str
    patterns: Sequence[str]
    read: Callable[[Msg, AckSubject], T | None]
    key: Callable[[T], object]
    one_per_subject: bool = False
    headers_only: bool = False

    def source(self, sink: Sink, start: Start, *, restart: bool = False) -> OrderedSource:
        """Make what reads them in order; nothing is asked before it is opened.

        Args:
            sink: Where their messages go.
            start: Where to begin.
            restart: Whether a stream that was made anew is read from its beginning; else reading fails.
        """
        ordered = Ordered(
            self.stream,
            self.jetstream.connection.new_token(),
            JITTER,
            filter_subjects=self.patterns,
            start=start,
            snapshot=True,
            one_per_subject=self.one_per_subject,
            headers_only=self.headers_only,
            max_messages=MAX_MESSAGES,
            max_bytes=MAX_BYTES,
            restart=restart,
        )
        return OrderedSource(self.jetstream, ordered, sink)
