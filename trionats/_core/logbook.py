"""What of a client's events goes to the log, and how loudly (design 17).

Operators are told of connections that come and go (INFO), and of what got lost or was refused (WARNING): once an
episode, which ends with the next connection, since what is refused is refused for each message. Nothing that a program
does or undergoes in normal operation is a warning. Everything can be had as events (`open_events`), with more in it.
"""

from __future__ import annotations

import logging
from traceback import walk_tb

from trionats import errors, events

__all__ = ["Logbook"]

log = logging.getLogger("trionats")

#: Of how many different things an episode tells.
MOST_TOLD = 100


class Logbook:
    """What one client has told the log in the current episode."""

    def __init__(self) -> None:
        self._told: set[tuple[object, ...]] = set()

    def write(self, event: events.ConnectionEvent) -> None:
        """Write down an event, if it is for the log."""
        match event:
            case events.Reconnected(server):
                self._told.clear()
                log.info("reconnected to %s", server)
            case events.Moved(server, left):
                self._told.clear()
                log.info("moved from %s to %s", left, server)
            case events.Disconnected(server, reason):
                log.info("disconnected from %s: %s", server, reason)
            case events.LameDuck(server):
                log.info("%s is about to shut down", server)
            case events.Closed(reason) if reason is not None:
                log.info(
                    "the connection is lost for good: %s",
                    reason if isinstance(reason, errors.Error) else type(reason).__name__,
                )
            case events.ReconnectFailed(server, reason):
                log.debug("no connection to %s: %s", server, reason)
            case _:
                self._warn(event)

    def _warn(self, event: events.ConnectionEvent) -> None:
        match event:
            case events.PermissionViolation(error):
                self._once((error.operation, error.subject, error.queue), "refused: %s", error)
            case events.ServerRefusal(error) if isinstance(error, errors.MaxSubscriptionsError):
                self._once((error.subject, error.queue), "refused: %s", error)
            case events.ReaderRefused(stream, error):
                self._once((stream, "reader"), "refused: reading stream %r: %s", stream, error)
            case events.ConsumerHeartbeatMissed(stream, consumer, seconds):
                self._once(
                    (stream, consumer, "silent"), "consumer %r of stream %r: silent for %g s", consumer, stream, seconds
                )
            case events.ConsumerLimitExceeded(stream, consumer, limit):
                self._once((stream, consumer, limit), "consumer %r of stream %r: refused: %s", consumer, stream, limit)
            case events.ConsumerUnreachable(stream, consumer):
                self._once(
                    (stream, consumer, "unreachable"), "consumer %r of stream %r: nobody responds", consumer, stream
                )
            case events.MessagesExpired(stream, consumer, count):
                text = "consumer %r of stream %r: %d messages waited past their ack wait so far"
                self._once((stream, consumer, "expired"), text, consumer, stream, count)
            case events.MessagesMissed(stream, consumer, count):
                text = "consumer %r of stream %r: %d messages were missed"
                self._once((stream, consumer, "missed"), text, consumer, stream, count)
            case events.UnknownStatus(stream, consumer, code, description):
                text = "consumer %r of stream %r: unknown status %d %s"
                self._once((stream, consumer, code), text, consumer, stream, code, description)
            case events.ChunksLeft(stream, subject, reason):
                self._once(
                    (stream, "chunks"), "data of no object stays in stream %r, at %r: %s", stream, subject, reason
                )
            case events.CallbackFailed(option, error):
                # Its text is the program's, and may hold anything.
                self._once((option,), "the callback %s failed: %s", option, type(error).__name__)
            case events.HandlerFailed(service, endpoint, error):
                text = "a handler of endpoint %r of service %r failed: %s"
                what = _blamed(error)
                self._once((service, endpoint, what), text, endpoint, service, what)
            case events.PublishesLost(count):
                log.warning("%d publishes are lost, or may be", count)
            case events.PublishesTooLarge(count, limit):
                log.warning("%d publishes are lost: the server takes %d bytes", count, limit)
            case events.SlowConsumer(subject, dropped):
                log.warning("the consumer of %r is slow; %d messages were dropped so far", subject, dropped)
            case _:
                pass

    def _once(self, what: tuple[object, ...], text: str, *arguments: object) -> None:
        if what in self._told or len(self._told) > MOST_TOLD:
            return
        self._told.add(what)
        if len(self._told) > MOST_TOLD:
            log.warning("more was refused than is told here, until the next connection")
        else:
            log.warning(text, *arguments)


def _blamed(error: Exception) -> str:
    """Name an exception and where in the program it comes from, but not its text: as with a callback. Without such a place it is ours."""
    name, place = type(error).__name__, error.__traceback__
    for frame, line in walk_tb(place):
        if not frame.f_globals.get("__name__", "").startswith("trionats."):
            return f"{name} at {frame.f_code.co_filename}:{line}"
    return f"{name}: {error}" if place else name
