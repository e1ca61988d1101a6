"""Where a publish is meant to go, when several streams may hear it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats import events
from trionats._jetstream.api import Api
from trionats._protocol.jetstream.publishing.publish import AckChooser, patience

if TYPE_CHECKING:
    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing


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
