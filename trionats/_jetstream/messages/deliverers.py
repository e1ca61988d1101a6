"""Who delivers the messages of consumers: one object for each life of a consumer, and those of one context.

When a life is over (the consumer was deleted, made anew, or reset), one store makes all of its messages void, so that no
acknowledgement of theirs settles another message.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, final
from weakref import WeakValueDictionary

from trionats import api, errors
from trionats._protocol.jetstream.acks import parse_ack_subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from trionats._core.messaging import Publishing

__all__ = ["Deliverer", "Deliverers"]


#: After how many seconds the server delivers again where a configuration does not say.
ACK_WAIT = 30.0


@final
class Deliverer:
    """A consumer, as far as the messages need to know it that it delivered.

    Args:
        connection: What acknowledgements are sent over.
        consumer: The consumer, for texts: "consumer 'C' of stream 'S'".
        ack_wait: After how many seconds without acknowledgement the server delivers a message again; infinite where it never
            does so, or where that is not known.
        acknowledges: Whether the consumer takes acknowledgements at all.
        backoff: The waits of the first, second and later deliveries, in seconds, where the consumer has such; the last one holds
            for all that come after it.
    """

    __slots__ = (
        "__weakref__",
        "ack_wait",
        "acknowledges",
        "backoff",
        "connection",
        "consumer",
        "created",
        "limits_deliveries",
        "void",
    )

    def __init__(
        self,
        connection: Publishing,
        consumer: str,
        *,
        ack_wait: float = inf,
        acknowledges: bool = True,
        backoff: Sequence[float] = (),
    ) -> None:
        self.connection = connection
        self.consumer = consumer
        self.ack_wait = ack_wait
        self.acknowledges = acknowledges
        self.backoff = backoff
        self.created: datetime | None = None
        """When this life of the consumer began; None where the server was not asked."""
        self.limits_deliveries = True
        """Whether a message is lost that was delivered too often; so it is as long as nobody has looked."""
        self.void = ""
        """Why its messages must not be acknowledged any more: "was reset"; an empty string while they may."""

    @property
    def takes_back(self) -> bool:
        """Whether what nobody has seen is given back to it when nothing is said about that."""
        return self.acknowledges and not self.limits_deliveries and not self.void

    def learn(self, info: api.ConsumerInfo) -> None:
        """Take over what the server says of it.

        Args:
            info: What it says.
        """
        config = info.config
        self.created = info.created
        self.acknowledges = config.ack_policy != api.AckPolicy.NONE
        self.limits_deliveries = config.max_deliver is not None and config.max_deliver > 0
        # With a back-off the wait differs by delivery; where that is not looked at, the shortest is safe.
        self.backoff = tuple(config.backoff or ()) if self.acknowledges else ()
        self.ack_wait = min(self.backoff or (config.ack_wait or ACK_WAIT,)) if self.acknowledges else inf

    def wait(self, reply: str) -> float:
        """Say for how many seconds the server waits for a verdict on one delivery; infinite where that is not known.

        Args:
            reply: The message's reply subject.
        """
        if not self.backoff:
            return self.ack_wait
        found = parse_ack_subject(reply)
        place = 0 if found is None else min(max(found.deliveries, 1), len(self.backoff)) - 1
        return self.backoff[place]

    def due(self, reply: str, now: float) -> float:
        """Say when the server will deliver a message again.

        Args:
            reply: The message's reply subject.
            now: When its wait began, by Trio's clock.
        """
        return now + (self.wait(reply) if self.backoff else self.ack_wait)


@final
class Deliverers:
    """The deliverers of one context, by the names of stream and consumer.

    A consumer that is reset, deleted or made anew counts from the beginning again, and an acknowledgement of a message from before
    settles another one, without a word: what stands in its subject are numbers, and no life. So all messages of one life share
    one `Deliverer`, which is made void when that life ends; whoever delivers asks here for the one of the life that is. They
    are held weakly: one lives as long as a handle, a feed or a message of it does.

    A reset that is under way makes them void at once: whether an acknowledgement in flight counts before or after it is not
    known. Refused by the server, they are valid again; where its response never came they stay void: what is not
    acknowledged is delivered again, which is what a reset is for.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[str, str], Deliverer] = WeakValueDictionary()

    def current(self, connection: Publishing, stream: str, name: str, info: api.ConsumerInfo | None) -> Deliverer:
        """Give the deliverer of a consumer's present life, the same one to all who ask.

        Args:
            connection: What acknowledgements are sent over.
            stream: The stream's name.
            name: The consumer's.
            info: What the server said of it when whoever asks looked; None where nobody has looked.
        """
        found = self._known.get((stream, name))
        if found is None:
            found = Deliverer(connection, f"consumer {name!r} of stream {stream!r}")
            self._known[stream, name] = found
            if info is not None:
                found.learn(info)
        return found

    def successor(self, void: Deliverer, stream: str, name: str) -> Deliverer:
        """Give the deliverer of the life that came after one that is over.

        Args:
            void: That of the life before. Of the new one as much is known as of this, until the server is asked.
            stream: The stream's name.
            name: The consumer's.
        """
        found = self._known.get((stream, name))
        if found is None:
            found = Deliverer(void.connection, void.consumer, ack_wait=void.ack_wait, acknowledges=void.acknowledges)
            found.limits_deliveries, found.backoff = void.limits_deliveries, void.backoff
            self._known[stream, name] = found
        return found

    def heard(self, info: api.ConsumerInfo) -> None:
        """Learn what the server says of a consumer now: its ack wait, and whether it is still the one that was known."""
        found = self._known.get((info.stream_name, info.name))
        if found is None:
            return
        if found.created is None or found.created == info.created:
            found.learn(info)
        else:
            self._end(found, (info.stream_name, info.name), "was made anew")

    def gone(self, stream: str, name: str) -> None:
        """Learn that a consumer is not there any more: its messages are void.

        Args:
            stream: The stream's name.
            name: The consumer's.
        """
        found = self._known.get((stream, name))
        if found is not None:
            self._end(found, (stream, name), "was deleted")

    @contextmanager
    def ending(self, stream: str, name: str, why: str) -> Iterator[None]:
        """Make all messages of a consumer void around the request that ends its life, unless the server refuses that.

        Args:
            stream: The stream's name.
            name: The consumer's.
            why: What becomes of it: "was reset".
        """
        found = self._known.get((stream, name))
        if found is None:
            yield
            return
        found.connection.pace.run.check()
        found.void = f"{why}, or may have been"
        try:
            yield
        except BaseException as error:
            refused = isinstance(error, errors.APIError) and error.code is not None
            if refused and self._known.get((stream, name)) is found:
                found.void = ""
            else:
                self._end(found, (stream, name), found.void)
            raise
        self._end(found, (stream, name), why)

    def _end(self, deliverer: Deliverer, key: tuple[str, str], why: str) -> None:
        deliverer.void = why
        if self._known.get(key) is deliverer:
            del self._known[key]
