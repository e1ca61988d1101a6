"""SystemClient: what the servers themselves answer, as services do, to users of the system account (``$SYS.REQ``).

Strategy
    All servers are asked at once, and each answers for itself. How many there are is asked of the one that we are connected to
    (STATSZ): with the last of them the call returns. That number is right while nothing happens; for a while after a server crashed it is
    too high, and then the answers end with a stall, and the result says how many are missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Never, TypeVar, final

from trio.lowlevel import checkpoint_if_cancelled

from trionats import errors, monitoring
from trionats._core.connection import connection_of
from trionats._core.deadlines import seconds_to_wait, too_late, unexpected
from trionats._protocol.monitoring.answers import PAGE, active_servers, paging_of, read_answer, read_id
from trionats._protocol.monitoring.requests import (
    ALL_SERVERS,
    Request,
    check_server,
    chosen,
    filters,
    is_server_id,
    request_of,
)
from trionats._protocol.replies import check_stall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trionats._core.message import Msg
    from trionats._core.messaging import HasMessaging
    from trionats._protocol.monitoring.requests import Kind, Sort, State

__all__ = ["SystemClient"]

A = TypeVar("A", bound=monitoring.Answer)

#: How many seconds after an answer the next one may take.
STALL: Final = 1.0


@final
class SystemClient:
    """Asks servers how they are, over NATS: for a client whose user is of the system account.

    Each call asks all servers that can be reached, over clusters, gateways and leaf nodes, or with `server` one, by its name or its id. It
    returns with the last answer, since how many servers there are is known; with filters, and where a server is missing, once nothing has
    come for `stall` seconds. The deadline in force ends it, too, with the answers that have come, and so does a `request_timeout` that was
    chosen; where there is neither, 5 s do.

    What comes back is a sequence of the servers' answers, by their names. What one of them says instead stands in `Answers.failed`, and
    how many are missing in `Answers.missing`. An answer that cannot be read is left out and told (`events.ForeignDataSkipped`).

    All calls raise:

    - `nats.errors.NoRespondersError`: nobody answers there: the user is not of the system account, or there is no such server.
    - `trionats.errors.MonitoringError`: the one server that was asked, or all of them, say why they do not answer.
    - `nats.errors.TimeoutError`: no server has answered in time.
    - `trionats.errors.PermissionsViolationError`: the user may not ask that.
    - `TypeError` and `ValueError`: an option is not what it can be; nothing was sent.

    Args:
        nc: The client.
        cluster: Ask only servers of this cluster.
        host: Ask only servers on this host, by the name that they say.
        domain: Ask only servers of this JetStream domain.
        tags: Ask only servers that have all these tags.
        stall: How many seconds after an answer the next one may take, where it is not known how many there are.

    Raises:
        TypeError: `nc` is no client, or an option of a wrong kind.
        ValueError: An option is empty, or `stall` not positive.
    """

    def __init__(
        self,
        nc: HasMessaging,
        *,
        cluster: str | None = None,
        host: str | None = None,
        domain: str | None = None,
        tags: Sequence[str] = (),
        stall: float = STALL,
    ) -> None:
        self._connection = connection_of(nc, "SystemClient", "(nc, ...)")
        self._filters = filters(cluster=cluster, host=host, domain=domain, tags=tags)
        check_stall("SystemClient", stall)
        self._stall = stall

    async def varz(self, *, server: str | None = None, **unknown: Never) -> monitoring.Answers[monitoring.Varz]:
        """Ask what servers are, and how busy.

        Args:
            server: The name or the id of one server; None for all.
        """
        return await self._ask("VARZ", monitoring.Varz, server, {}, unknown)

    async def connz(
        self,
        *,
        server: str | None = None,
        account: str | None = None,
        user: str | None = None,
        cid: int | None = None,
        mqtt_client: str | None = None,
        filter_subject: str | None = None,
        state: State = "open",
        sort: Sort = "cid",
        auth: bool = False,
        subscriptions: bool = False,
        subscriptions_detail: bool = False,
        limit: int | None = None,
        **unknown: Never,
    ) -> monitoring.Answers[monitoring.Connz]:
        """Ask which connections servers have: all of them, however many, since pages are put together.

        Args:
            server: The name or the id of one server; None for all.
            account: Only those of this account. All servers are asked by the account's own subject then
                (``$SYS.REQ.ACCOUNT.<account>.CONNZ``).
            user: Only those of this user.
            cid: Only the one of this number, of whichever servers have one.
            mqtt_client: Only the one of this MQTT client.
            filter_subject: Only those that are subscribed to this subject; with `account`.
            state: "open", "closed" (the last ones), or "all".
            sort: By what they are sorted; "stop" and "reason" are for closed ones.
            auth: Tell the users and accounts.
            subscriptions: Tell the subjects that each is subscribed to.
            subscriptions_detail: Tell all of each subscription.
            limit: So many of each server are enough; None for all.
        """
        options = chosen(
            "CONNZ",
            account=account,
            user=user,
            cid=cid,
            mqtt_client=mqtt_client,
            filter_subject=filter_subject,
            state=state,
            sort=sort,
            auth=auth,
            subscriptions=subscriptions,
            subscriptions_detail=subscriptions_detail,
            limit=limit,
        )
        return await self._ask("CONNZ", monitoring.Connz, server, options, unknown)

    async def subsz(
        self,
        *,
        server: str | None = None,
        account: str | None = None,
        subscriptions: bool = False,
        test: str | None = None,
        offset: int = 0,
        limit: int | None = None,
        **unknown: Never,
    ) -> monitoring.Answers[monitoring.Subsz]:
        """Ask how many subscriptions servers have, or which.

        Args:
            server: The name or the id of one server; None for all.
            account: Only those of this account.
            subscriptions: List them: 1,024 unless `limit` says otherwise, in no order.
            test: Only those that would get what is published to this subject.
            offset: How many are left out.
            limit: How many are listed at the most.
        """
        options = chosen("SUBSZ", account=account, subscriptions=subscriptions, test=test, offset=offset, limit=limit)
        return await self._ask("SUBSZ", monitoring.Subsz, server, options, unknown)

    async def routez(
        self,
        *,
        server: str | None = None,
        subscriptions: bool = False,
        subscriptions_detail: bool = False,
        **unknown: Never,
    ) -> monitoring.Answers[monitoring.Routez]:
        """Ask for the connections within clusters.

        Args:
            server: The name or the id of one server; None for all.
            subscriptions: Tell the subjects that the other side is subscribed to.
            subscriptions_detail: Tell all of each subscription.
        """
        options = chosen("ROUTEZ", subscriptions=subscriptions, subscriptions_detail=subscriptions_detail)
        return await self._ask("ROUTEZ", monitoring.Routez, server, options, unknown)

    async def gatewayz(
        self,
        *,
        server: str | None = None,
        name: str | None = None,
        accounts: bool = False,
        account_name: str | None = None,
        **unknown: Never,
    ) -> monitoring.Answers[monitoring.Gatewayz]:
        """Ask for the connections between clusters.

        Args:
            server: The name or the id of one server; None for all.
            name: Only those to the cluster of this name.
            accounts: Tell what each account has there.
            account_name: Tell what this account has there.
        """
        options = chosen("GATEWAYZ", name=name, accounts=accounts, account_name=account_name)
        return await self._ask("GATEWAYZ", monitoring.Gatewayz, server, options, unknown)

    async def leafz(
        self, *, server: str | None = None, account: str | None = None, subscriptions: bool = False, **unknown: Never
    ) -> monitoring.Answers[monitoring.Leafz]:
        """Ask for the connections to leaf nodes, and of those.

        Args:
            server: The name or the id of one server; None for all.
            account: Only those of this account, by its own subject where all servers are asked.
            subscriptions: Tell the subjects that the other side is subscribed to.
        """
        options = chosen("LEAFZ", account=account, subscriptions=subscriptions)
        return await self._ask("LEAFZ", monitoring.Leafz, server, options, unknown)

    async def jsz(
        self,
        *,
        server: str | None = None,
        account: str | None = None,
        accounts: bool = False,
        streams: bool = False,
        consumers: bool = False,
        config: bool = False,
        raft: bool = False,
        leader_only: bool = False,
        **unknown: Never,
    ) -> monitoring.Answers[monitoring.Jsz]:
        """Ask what JetStream holds on servers; one that has none says that it is disabled.

        The accounts of a server are all listed, however many, since pages are put together.

        Args:
            server: The name or the id of one server; None for all.
            account: Tell what this account has there.
            accounts: Tell what each account has there.
            streams: And their streams.
            consumers: And their consumers.
            config: With their configurations.
            raft: With their RAFT groups.
            leader_only: Ask only the leader of all.
        """
        options = chosen(
            "JSZ",
            account=account,
            accounts=accounts,
            streams=streams,
            consumers=consumers,
            config=config,
            raft=raft,
            leader_only=leader_only,
        )
        return await self._ask("JSZ", monitoring.Jsz, server, options, unknown, only_one=leader_only)

    async def healthz(
        self,
        *,
        server: str | None = None,
        js_enabled_only: bool = False,
        js_server_only: bool = False,
        account: str | None = None,
        stream: str | None = None,
        consumer: str | None = None,
        details: bool = False,
        **unknown: Never,
    ) -> monitoring.Answers[monitoring.Healthz]:
        """Ask how servers are. What is not in order is no error here, but says so (`Healthz.status`, `Healthz.error`).

        Args:
            server: The name or the id of one server; None for all.
            js_enabled_only: Look only whether JetStream is there where it should be.
            js_server_only: Leave out accounts, streams and consumers.
            account: Look only at what this account has.
            stream: Look only at this stream of the account.
            consumer: Look only at this consumer of the stream.
            details: Tell all that is not in order, and not only the first of it.
        """
        options = chosen(
            "HEALTHZ",
            js_enabled_only=js_enabled_only,
            js_server_only=js_server_only,
            account=account,
            stream=stream,
            consumer=consumer,
            details=details,
        )
        return await self._ask("HEALTHZ", monitoring.Healthz, server, options, unknown)

    async def accountz(
        self, *, server: str | None = None, account: str | None = None, **unknown: Never
    ) -> monitoring.Answers[monitoring.Accountz]:
        """Ask which accounts servers know, or what they know of one.

        Args:
            server: The name or the id of one server; None for all.
            account: Tell what is known of this one.
        """
        return await self._ask("ACCOUNTZ", monitoring.Accountz, server, chosen("ACCOUNTZ", account=account), unknown)

    # Inside.

    async def _ask(
        self,
        kind: Kind,
        answer: Callable[..., A],
        server: str | None,
        options: dict[str, Any],
        unknown: Mapping[str, object],
        *,
        only_one: bool = False,
    ) -> monitoring.Answers[A]:
        if unknown:
            raise unexpected(kind.lower(), unknown, "system")
        check_server(kind, server)
        self._connection.pace.run.check()
        await checkpoint_if_cancelled()
        if server is None:
            answers, failed, missing = await self._ask_all(kind, answer, options, only_one=only_one)
        else:
            number = server if is_server_id(server) else await self._id_of(kind, server)
            answers, failed, missing = [await self._ask_one(kind, answer, number, options)], [], 0
        whole = []
        for one in answers:
            try:
                whole.append(await self._with_all_pages(kind, answer, one, options))
            except errors.MonitoringError as error:
                failed.append(error)
        if failed and not whole:
            raise failed[0]
        whole.sort(key=lambda one: (one.server.name, one.server.id))
        return monitoring.Answers(tuple(whole), tuple(failed), missing)

    async def _ask_all(
        self, kind: Kind, answer: Callable[..., A], options: dict[str, Any], *, only_one: bool
    ) -> tuple[list[A], list[errors.MonitoringError], int | None]:
        expected = 1 if only_one else await self._count(kind)
        request = request_of(kind, ALL_SERVERS, {**options, **self._filters})
        messages = await self._collect(kind, request, expected or 0)
        answers: list[A] = []
        failed: list[errors.MonitoringError] = []
        for message in messages:
            found = self._connection.foreign.read(_where(kind), read_answer, kind, answer, message)
            if isinstance(found, errors.MonitoringError):
                failed.append(found)
            elif found is not None:
                answers.append(found)
        return answers, failed, None if expected is None else max(0, expected - len(messages))

    async def _ask_one(self, kind: Kind, answer: Callable[..., A], number: str, options: dict[str, Any]) -> A:
        request = request_of(kind, number, options)
        try:
            message = await self._connection.request(request.subject, request.payload)
        except errors.NoRespondersError as nobody:
            raise self._nobody(kind, request, f"there is no server {number}") from nobody
        found = self._connection.foreign.read(_where(kind), read_answer, kind, answer, message)
        if found is None:
            text = f"{kind} of server {number}: what it says cannot be read"
            raise errors.explained(errors.MonitoringError, text, request=kind, server_id=number)
        if isinstance(found, errors.MonitoringError):
            raise found
        return found

    async def _with_all_pages(self, kind: Kind, answer: Callable[..., A], first: A, options: dict[str, Any]) -> A:
        limit = options.get("limit")
        paging = paging_of(first, limit)
        if paging is None:
            return first
        while (offset := paging.offset) is not None:
            page = {**options, "offset": offset, "limit": PAGE}
            paging.take(await self._ask_one(kind, answer, first.server.id, page))
        return paging.whole()

    async def _count(self, kind: Kind) -> int | None:
        """Ask how many servers there are; None where that is not known, or not all are to answer."""
        name = str(self._connection.engine.info.get("server_name", ""))
        request = request_of("STATSZ", ALL_SERVERS, {"server_name": name, "exact_match": True})
        try:
            message = await self._connection.request(request.subject, request.payload)
        except errors.NoRespondersError as nobody:
            raise self._nobody(kind, request) from nobody
        except errors.PermissionsViolationError:
            return None
        count = self._connection.foreign.read(_where("STATSZ"), active_servers, message)
        return None if self._filters else count

    async def _id_of(self, kind: Kind, server: str) -> str:
        """Find the id of a server that is known by its name."""
        expected = await self._count(kind)
        request = request_of("IDZ", ALL_SERVERS, {})
        messages = await self._collect("IDZ", request, expected or 0)
        found = [self._connection.foreign.read(_where("IDZ"), read_id, message) for message in messages]
        ids = dict(one for one in found if one is not None)
        if server not in ids:
            there = ", ".join(sorted(ids))
            text = f"{kind}: no server is called {server!r}; there are {there}"
            raise errors.explained(errors.NoRespondersError, text)
        return ids[server]

    async def _collect(self, kind: Kind, request: Request, expected: int) -> list[Msg]:
        seconds = seconds_to_wait(self._connection.request_timeout)
        try:
            messages = await self._connection.request_many(
                request.subject, request.payload, max_msgs=expected, stall=self._stall
            )
        except errors.NoRespondersError as nobody:
            raise self._nobody(kind, request) from nobody
        if not messages:
            await checkpoint_if_cancelled()
            raise too_late(seconds, f"{kind} of all servers")
        return messages

    def _nobody(self, kind: Kind, request: Request, why: str = "") -> errors.NoRespondersError:
        """Say why nobody answers: the system account's services are nobody else's."""
        if self._connection.engine.info.get("acc_is_sys") is not True:
            account = "the user is not of the system account"
            why = f"{why}, or {account}" if why else account
        text = f"{kind}: nobody answers {request.subject!r}: {why or 'no server is there'}"
        return errors.explained(errors.NoRespondersError, text)


def _where(kind: Kind) -> str:
    return f"answers to {kind}"
