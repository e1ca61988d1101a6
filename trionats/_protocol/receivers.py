"""What takes the messages of one subscription, whichever client they come through.

The reader calls its methods as things happen: so they are total, and never wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Intake", "Receiver"]

M = TypeVar("M", contravariant=True)


class Receiver(Protocol[M]):
    """What takes messages of the kind `M`."""

    def deliver(self, message: M, /) -> None:
        """Take one message."""

    def connection_lost(self, reason: Exception, /) -> None:
        """Take note that the connection broke; the subscription stays."""

    def connection_restored(self) -> None:
        """Take note that the connection is back, and the subscription replayed."""

    def ended(self, reason: BaseException | None, /) -> None:
        """Take note that nothing will come any more: None on purpose, else why."""


class Intake(Generic[M]):
    """A receiver made of four callables: for what does not show them as its own methods (design 64).

    Nothing stands between a callable and who calls it, so a message costs what a method call costs.
    """

    __slots__ = ("connection_lost", "connection_restored", "deliver", "ended")

    def __init__(
        self,
        deliver: Callable[[M], None],
        ended: Callable[[BaseException | None], None],
        connection_lost: Callable[[Exception], None] | None = None,
        connection_restored: Callable[[], None] | None = None,
    ) -> None:
        """Make one.

        Args:
            deliver: Takes one message.
            ended: Called when nothing will come any more.
            connection_lost: Called when the connection broke; None where that makes no difference.
            connection_restored: Called when it is back; None where that makes no difference.
        """
        self.deliver = deliver
        self.ended = ended
        self.connection_lost = connection_lost or _unmoved_by_loss
        self.connection_restored = connection_restored or _unmoved


def _unmoved_by_loss(reason: Exception) -> None:
    pass


def _unmoved() -> None:
    pass
