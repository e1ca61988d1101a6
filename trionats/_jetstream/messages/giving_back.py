"""Giving back what was delivered to us and handed to nobody: another worker has it in milliseconds, and not after the ack wait.

Whoever leaves a pull request or a push subscription unsubscribes and NAKs, in one synchronous step (design 7, 77), what it holds;
and until the PONG behind its UNSUB (`Attachment.retire`) it also NAKs what the server sent before it knew. All of this goes
out although nobody waits for it, and no program is told when it is lost: then the ack wait does the same, later.

Where a consumer limits deliveries, each NAK takes one from a message that nobody has seen, and the last one loses it; so
there, and where that is not known, the ack wait has to do.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from trionats._protocol.jetstream.acks import NAK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trionats._core.message import Msg
    from trionats._core.messaging import Retirable
    from trionats._jetstream.messages.deliverers import Deliverer

__all__ = ["give_back", "leave"]


def give_back(deliverer: Deliverer, messages: Iterable[Msg]) -> None:
    """NAK messages that nobody has seen. Synchronous; it cannot fail.

    Args:
        deliverer: The consumer that delivered them.
        messages: What it delivered, and its statuses, which are nobody's to give back.
    """
    for message in messages:
        # A life of the consumer that is over takes nothing back; what its numbers mean now belongs to somebody else.
        if message.reply and not deliverer.void:
            deliverer.connection.acknowledge_aside(message.reply, NAK)


def leave(
    attachment: Retirable, deliverer: Deliverer, messages: Iterable[Msg] = (), *, nak: bool | None = None
) -> None:
    """Unsubscribe, and give back what was delivered and handed to nobody, with what is on its way. Synchronous; it cannot fail.

    Args:
        attachment: Where the messages come; its receiver gets no more of them.
        deliverer: The consumer that delivers them.
        messages: Those that are there.
        nak: Whether they are given back; None to decide by what is known of the consumer (`Deliverer.takes_back`).
    """
    if deliverer.takes_back if nak is None else nak:
        # First this: the server would deliver them to us again.
        attachment.retire(partial(_give_back_one, deliverer))
        give_back(deliverer, messages)
    else:
        attachment.detach()


def _give_back_one(deliverer: Deliverer, message: Msg) -> None:
    give_back(deliverer, (message,))
