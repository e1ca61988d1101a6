"""Where a publish is meant to go, when several streams may hear it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from trionats import events
from trionats._jetstream.api import Api
from trionats._protocol.jetstream.publishing.publish import AckChooser, patience
from trionats._protocol.replies import nobody_listens

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing

#: How many choosers are still shown what comes after their choice.
CHOOSERS_REMEMBERED: Final = 64


@final
class Destination:
    """The domain that the messages to one subject are meant for, and who else has stored them.

    Args:
        jetstream: Where the streams are.
        subject: The subject, or what stands for several in the event.
        doing: What they are published for, for texts.
        domain: The domain that counts; None where the first reply does, wherever it comes from.
        far: Whether it is another domain than that of the context, as for a mirror's origin.
    """

    def __init__(
        self, jetstream: Api[Publishing], subject: str, doing: str, domain: str | None, *, far: bool = False
    ) -> None:
        self._api, self._subject, self._doing, self._domain, self._far = jetstream, subject, doing, domain, far
        self._told: list[str] = []

    @property
    def doing(self) -> str:
        """What is being done, and who else has stored it."""
        if not self._told:
            return self._doing
        return f"{self._doing} (stored in {' and '.join(self._told)}, where it was not meant to go)"

    def chooser(self) -> AckChooser[Msg] | None:
        """Make what chooses among the replies to one message; None where the first one counts."""
        if self._domain is None:
            return None
        whereabouts = self._api.whereabouts
        return AckChooser(
            self._domain,
            strict=whereabouts.named is not None,
            # Also where nobody asked for a domain: the nearest one's reply does not always come first.
            patience=patience(None if self._far else whereabouts.round_trip),
            tell=self._tell,
        )

    def _tell(self, stream: str, domain: str) -> None:
        where = f"domain {domain!r}" if domain else "no domain"
        if where not in self._told and self._domain is not None:
            self._told.append(where)
            self._api.connection.emit(events.StoredElsewhere(self._subject, stream, domain, self._domain))


def chosen_destination(jetstream: Api[Publishing], subject: str, doing: str) -> Destination:
    """Make the destination of what is published into the domain that was asked for; any, where none was.

    Args:
        jetstream: Where the streams are.
        subject: As for `Destination`.
        doing: As for `Destination`.
    """
    whereabouts = jetstream.whereabouts
    domain = None if whereabouts.chosen is None else whereabouts.named or whereabouts.chosen
    return Destination(jetstream, subject, doing, domain)


@final
class Choosers:
    """Which replies count, of those to many publishes into one domain: each publish has a chooser, if a domain was asked for.

    Args:
        jetstream: Where the streams are.
        awaited: Under which tokens replies are expected.
        give_up: Called when no better reply has come in time to the one under a token, with what has come for all that comes.
    """

    def __init__(
        self, jetstream: Api[Publishing], awaited: Collection[str], give_up: Callable[[str, Msg | Exception], None]
    ) -> None:
        self._api, self._awaited, self._give_up = jetstream, awaited, give_up
        self._choosers: dict[str, AckChooser[Msg]] = {}
        self.anywhere = jetstream.whereabouts.chosen is None
        """Whether the first reply counts, wherever it comes from."""

    def forget(self) -> None:
        """Choose no more for what was published so far."""
        self._choosers.clear()

    def add(self, subject: str, token: str) -> None:
        """Choose among the replies to a publish."""
        chooser = chosen_destination(self._api, subject, f"publish to {subject!r}").chooser()
        if chooser is None:
            return
        choosers = self._choosers
        choosers[token] = chooser
        # What comes behind its choice is told, too, for a while.
        while len(choosers) > CHOOSERS_REMEMBERED + len(self._awaited):
            oldest = next(iter(choosers))
            done = choosers.pop(oldest)
            if oldest in self._awaited:
                choosers[oldest] = done

    def chosen(self, token: str, message: Msg) -> bool:
        """Say whether a reply is the one."""
        chooser = self._choosers.get(token)
        if chooser is None or nobody_listens(message):
            return True
        patience = chooser.choose(message)
        if patience and token in self._awaited:
            when = trio.current_time() + patience
            self._api.connection.call_at(when, lambda: self._give_up(token, chooser.give_up()))
        return not patience


def written_at(jetstream: Api[Publishing], stream: str) -> tuple[Api[Publishing], str]:
    """Say where what is written into a bucket is stored: in its own stream, or for a mirror in its origin's.

    Args:
        jetstream: Where the bucket was found.
        stream: The bucket's stream there.

    Returns:
        The API there, and the stream.
    """
    origin = jetstream.whereabouts.origin(stream)
    if origin is None:
        return jetstream, stream
    there = jetstream if origin.prefix == jetstream.prefix else Api(jetstream.connection, origin.prefix)
    return there, origin.stream


def bucket_destination(jetstream: Api[Publishing], stream: str, subject: str, doing: str) -> Destination:
    """Make the destination of what is written into a bucket: the domain that was asked for, or that the API has named.

    For a mirror it is the domain of its origin.

    Args:
        jetstream: Where the bucket was found.
        stream: The bucket's stream there.
        subject: As for `Destination`.
        doing: As for `Destination`.
    """
    origin = jetstream.whereabouts.origin(stream)
    far = origin is not None and bool(origin.domain)
    return Destination(jetstream, subject, doing, jetstream.whereabouts.domain_of(stream), far=far)
