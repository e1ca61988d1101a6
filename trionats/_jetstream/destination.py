"""Where a publish is meant to go, when several streams may hear it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats import events
from trionats._protocol.jetstream.publishing import AckChooser, patience

if TYPE_CHECKING:
    from trionats._core.message import Msg
    from trionats._jetstream.management import Management


@final
class Destination:
    """The domain that the messages to one subject are meant for, and who else has stored them.

    Args:
        js: The context that they are published through.
        subject: The subject, or what stands for several in the event.
        doing: What they are published for, for texts.
        domain: The domain that counts; None where the first answer does, wherever it comes from.
        far: Whether it is another domain than that of the context, as for a mirror's origin.
    """

    def __init__(self, js: Management, subject: str, doing: str, domain: str | None, *, far: bool = False) -> None:
        self._js, self._subject, self._doing, self._domain, self._far = js, subject, doing, domain, far
        self._told: list[str] = []

    @property
    def doing(self) -> str:
        """What is being done, and who else has stored it."""
        if not self._told:
            return self._doing
        return f"{self._doing} (stored in {' and '.join(self._told)}, where it was not meant to go)"

    def chooser(self) -> AckChooser[Msg] | None:
        """Make what chooses among the answers to one message; None where the first one counts."""
        if self._domain is None:
            return None
        whereabouts = self._js.whereabouts
        return AckChooser(
            self._domain,
            strict=whereabouts.named is not None,
            # Where nobody asked for a domain it is the nearest, whose refusal comes first.
            patience=patience(None if self._far else whereabouts.round_trip)
            if self._far or whereabouts.chosen is not None
            else 0.0,
            tell=self._tell,
        )

    def _tell(self, stream: str, domain: str) -> None:
        where = f"domain {domain!r}" if domain else "no domain"
        if where not in self._told and self._domain is not None:
            self._told.append(where)
            self._js.nc.emit(events.StoredElsewhere(self._subject, stream, domain, self._domain))


def written_at(js: Management, stream: str) -> tuple[Management, str]:
    """Say where what is written into a bucket is stored: in its own stream, or for a mirror in its origin's.

    Args:
        js: The context that the bucket was found through.
        stream: The bucket's stream there.

    Returns:
        The context there, and the stream.
    """
    origin = js.whereabouts.origin(stream)
    if origin is None:
        return js, stream
    return (js if origin.prefix == js.prefix else js.nc.jetstream(prefix=origin.prefix)), origin.stream


def bucket_destination(js: Management, stream: str, subject: str, doing: str) -> Destination:
    """Make the destination of what is written into a bucket: the domain that was asked for, or that the API has named.

    For a mirror it is the domain of its origin.

    Args:
        js: The context that the bucket was found through.
        stream: The bucket's stream there.
        subject: As for `Destination`.
        doing: As for `Destination`.
    """
    origin = js.whereabouts.origin(stream)
    far = origin is not None and bool(origin.domain)
    return Destination(js, subject, doing, js.whereabouts.domain_of(stream), far=far)
