"""ServiceClient: which services there are, of any client's, and what they say of themselves (ADR-32).

Nobody knows how many services there are, so answers are collected until they stall; of an instance there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Never, TypeVar, final

from trio.lowlevel import checkpoint_if_cancelled

from trionats import api, errors
from trionats._core.connection import connection_of
from trionats._core.deadlines import unexpected
from trionats._protocol.replies import check_stall
from trionats._protocol.services.discovery import read_answer
from trionats._protocol.services.names import instance_of, name_of, prefix_of
from trionats._protocol.services.words import PREFIX, control_subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trionats._core.messaging import HasMessaging
    from trionats._protocol.services.words import Verb

__all__ = ["ServiceClient"]

A = TypeVar("A", api.ServicePing, api.ServiceInfo, api.ServiceStats)

#: How many seconds after an answer the next one may take.
STALL: Final = 0.3


@final
class ServiceClient:
    """Finds services, of this and any other client library, and asks what they are and what they have done (ADR-32).

    Each call asks all services, or those of a name, or one instance by its name and its id, and gives their answers by name and id. An
    instance answers once, and ends it; how many others there are nobody knows, so those calls take `stall` seconds longer than the last
    answer. The deadline in force ends it, too, with the answers that have come, and so does a `request_timeout` that was chosen, where there is
    neither, 5 s do. Where there is no service, the list is empty, at once.

    What a client library leaves out is at its default, and what is not known here stands in `extra`. An answer that cannot be read is left
    out, and told (`trionats.events.ForeignDataSkipped`).

    Args:
        nc: The client.
        prefix: What the subjects begin with on which services are asked: "$SRV", unless an account imports them under another one.
        stall: How many seconds after an answer the next one may take.

    Raises:
        TypeError: `nc` is no client, or an argument of a wrong kind.
        ValueError: `prefix` is no subject, or `stall` not positive.
    """

    def __init__(self, nc: HasMessaging, *, prefix: str = PREFIX, stall: float = STALL) -> None:
        self._connection = connection_of(nc, "ServiceClient", "(nc, ...)")
        check_stall("ServiceClient", stall)
        self._prefix, self._stall = prefix_of("ServiceClient", prefix), stall

    async def ping(self, name: str | None = None, id: str | None = None, **unknown: Never) -> list[api.ServicePing]:  # noqa: A002
        """Find services.

        Args:
            name: Only those that are called so; None for all.
            id: Only this instance of them.

        Returns:
            Who they are.

        Raises:
            trionats.errors.PermissionsViolationError: The user may not ask.
            trionats.errors.DisconnectedError: The connection broke meanwhile.
            TypeError: An argument is no text.
            ValueError: No service can be called so, or an id is given without a name.
        """
        return await self._ask("PING", api.ServicePing, name, id, unknown)

    async def info(self, name: str | None = None, id: str | None = None, **unknown: Never) -> list[api.ServiceInfo]:  # noqa: A002
        """Ask services what they are, and to which subjects they respond.

        Args:
            name: Only those that are called so; None for all.
            id: Only this instance of them.

        Returns:
            What they say.

        Raises:
            nats.errors.Error: As for `ping`.
        """
        return await self._ask("INFO", api.ServiceInfo, name, id, unknown)

    async def stats(self, name: str | None = None, id: str | None = None, **unknown: Never) -> list[api.ServiceStats]:  # noqa: A002
        """Ask services what they have done.

        Libraries count differently: nats.js counts no time of asynchronous handlers, and neither it nor nats-py counts the errors that
        a handler has responded.

        Args:
            name: Only those that are called so; None for all.
            id: Only this instance of them.

        Returns:
            What they say.

        Raises:
            nats.errors.Error: As for `ping`.
        """
        return await self._ask("STATS", api.ServiceStats, name, id, unknown)

    # Inside.

    async def _ask(
        self, verb: Verb, answer: type[A], name: str | None, instance: str | None, unknown: Mapping[str, object]
    ) -> list[A]:
        call = verb.lower()
        if unknown:
            raise unexpected(call, unknown, "services")
        if name is not None:
            name_of(call, name)
        if instance is not None:
            instance_of(call, instance, name)
        self._connection.pace.run.check()
        await checkpoint_if_cancelled()
        subject = control_subject(verb, name, instance, self._prefix)
        try:
            messages = await self._connection.request_many(
                subject, max_msgs=0 if instance is None else 1, stall=self._stall
            )
        except errors.NoRespondersError:
            return []
        where = f"answers to {subject}"
        found = [self._connection.foreign.read(where, read_answer, verb, answer, message) for message in messages]
        # The same answer twice is one: an account may import its own services, too.
        by_instance = {(one.name, one.id): one for one in found if one is not None}
        return [one for _, one in sorted(by_instance.items())]
