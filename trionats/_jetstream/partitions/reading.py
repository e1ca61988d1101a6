"""A member of a partitioned consumer group as a feed: its consumer while it has one, and the configuration of its group all the time.

Who decides
    What to do as the configuration changes is `_protocol.jetstream.partitions.member`'s to say; how the consumer is read stands in
    `consuming`, of which this is a kind: one after the other, it reads several consumers. A watcher tells the configuration; the feed's
    task hears it whenever it has nothing else to do.

From one consumer to the next
    What is buffered is given back and dropped: nobody has seen it, and it comes again to whom it belongs then. What somebody holds is
    waited for until it has its verdict. The server may delete the consumer before it has read an acknowledgement that was sent before, so
    behind the last one it is asked to confirm something.

Leaving
    gives the pin back, too, so that another process of the member need not wait until it is missed.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Final, NoReturn, final

import trio
from trio.lowlevel import checkpoint

from trionats import errors, events
from trionats._core.deadlines import too_late
from trionats._feeds.feed import feeding
from trionats._jetstream.api import about, sound
from trionats._jetstream.consumers.consumer import Consumer
from trionats._jetstream.consumers.consuming import ConsumerFeed
from trionats._jetstream.jitter import JITTER
from trionats._jetstream.kv.access import is_gone
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.messages.giving_back import give_back
from trionats._jetstream.ordered.source import RESPONSE_LIMIT
from trionats._jetstream.ordered.watcher import watching
from trionats._jetstream.partitions.groups import find_bucket, find_group, require
from trionats._protocol import subjects
from trionats._protocol.jetstream import levels
from trionats._protocol.jetstream.acks import IN_PROGRESS, Standing
from trionats._protocol.jetstream.actions import LAST_PER_SUBJECT, Fail, Wait
from trionats._protocol.jetstream.consumers.demand import Demand
from trionats._protocol.jetstream.partitions.assets import ACK_WAIT, PRIORITY_GROUP, consumer_config
from trionats._protocol.jetstream.partitions.assignment import without_partition
from trionats._protocol.jetstream.partitions.member import (
    Create,
    Delete,
    Inspect,
    Look,
    Member,
    Read,
    Settle,
    Step,
    Tell,
)
from trionats._protocol.jetstream.pull import PullInbox
from trionats._protocol.jetstream.refusals import is_consumer_missing
from trionats.api import ConsumerInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trionats import api
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._jetstream.kv.store import KeyValue
    from trionats._jetstream.messages.message import JetStreamMsg
    from trionats._jetstream.ordered.watcher import Watcher
    from trionats._protocol.jetstream.partitions.groups import Place

__all__ = ["partition"]

#: What is asked of a consumer. It gives one message at a time, unless somebody else has created it.
DEMAND: Final = Demand(max_messages=100, expires=ACK_WAIT / 2, group=PRIORITY_GROUP)
#: How often it is looked whether somebody has settled what is waited for: nobody is told of verdicts.
LOOK_EVERY: Final = 0.02
_UNPIN: Final = json.dumps({"group": PRIORITY_GROUP}).encode()
#: For what is over with the connection: whoever ends the feed knows why.
_OVER: Final = (errors.ConnectionDrainingError, errors.ConnectionClosedError)


@final
class PartitionFeed(ConsumerFeed):
    """What a member of a group is given.

    Args:
        jetstream: Where the group is.
        place: The group.
        name: The member's name.
        member: Its decisions.
        kv: The bucket of its configuration.
        configs: A watcher of that.
    """

    def __init__(
        self,
        jetstream: Api[Publishing],
        place: Place,
        name: str,
        member: Member,
        kv: KeyValue,
        configs: Watcher[api.KeyValueEntry],
    ) -> None:
        super().__init__(Consumer(jetstream, place.read_stream, place.consumer(name), None), DEMAND)
        self._name = f"member {name!r} of {place}"
        self._jetstream, self._place, self._member_name = jetstream, place, name
        self._member, self._kv, self._configs = member, kv, configs
        self._is_read, self._pin = False, ""
        self._info: ConsumerInfo | None = None
        # How many messages of a consumer that is read no longer have left the channel, for somebody who has not taken them yet.
        self._strays = 0
        # What somebody was given and may not have settled yet.
        self._held: deque[JetStreamMsg] = deque()

    # What whoever receives calls.

    def _taken(self, item: JetStreamMsg) -> bool:
        if self._strays:
            self._strays -= 1
            give_back(item.__deliverer__(), (item,))
            return True
        if super()._taken(item):
            return True
        item.subject = without_partition(item.subject)
        while self._held and _is_settled(self._held[0]):
            self._held.popleft()
        self._held.append(item)
        return False

    # The feed's task.

    async def _go_on(self) -> NoReturn:
        while True:
            self._hear_configs()
            step = self._member.next(trio.current_time())
            if isinstance(step, Fail):
                raise step.error
            if isinstance(step, Tell):
                place = self._place
                told = events.PartitionsChanged(place.stream, place.group, self._member_name, step.partitions)
                self._connection.emit(told)
            elif isinstance(step, Read):
                self._begin()
            elif isinstance(step, Settle):
                await self._settle()
            elif not isinstance(step, Wait):
                await self._do(step)
            elif self._is_read:
                await self._see_to_it()
            else:
                await self._park(step)

    async def _park(self, step: object) -> bool:
        if isinstance(step, Fail):
            # It was seen to already.
            await checkpoint()
            return False
        self._until = step.until if isinstance(step, Wait) else inf
        with trio.CancelScope(deadline=self._until) as scope:
            self._parked = scope.cancel
            try:
                self._told(await self._configs.receive())
            except trio.EndOfChannel:
                # The client is closed or drained, or the nursery cancelled.
                self._end(None)
            except errors.BucketNotFoundError:
                self._member.deleted(0)
            finally:
                self._parked = None
        if not scope.cancelled_caught or trio.current_time() < self._until:
            return False
        # As in `DeliveryFeed`: what the reader reads now was there in time.
        await checkpoint()
        return True

    def _hear_configs(self) -> None:
        """Take note of all that the watcher has told."""
        with suppress(trio.WouldBlock, trio.EndOfChannel, errors.BucketNotFoundError):
            while True:
                self._told(self._configs.receive_nowait())

    def _told(self, entry: api.KeyValueEntry) -> None:
        if entry.operation is None:
            self._member.stored(entry.value, entry.revision)
        else:
            self._member.deleted(entry.revision)

    async def _do(self, step: Step) -> None:
        failure: Exception = too_late(RESPONSE_LIMIT, self._name)
        try:
            with trio.move_on_after(RESPONSE_LIMIT):
                await self._ask(step)
                return
        except _OVER:
            await self._park(Wait(inf))
            return
        except errors.Error as error:
            failure = error
        self._member.failed(failure, trio.current_time())

    async def _ask(self, step: Step) -> None:
        manager, place = JetStreamManager(self._jetstream), self._place
        consumer = place.consumer(self._member_name)
        if isinstance(step, Look):
            found = await self._kv.__access__().last(place.key)
            if found is None or is_gone(found):
                self._member.deleted(0)
            else:
                self._member.looked(found.data, found.seq)
        elif isinstance(step, Inspect):
            info: ConsumerInfo | None = None
            try:
                info = await manager.consumer_info(place.read_stream, consumer)
            except errors.NotFoundError as error:
                if not is_consumer_missing(error):
                    raise
            self._info = info
            self._member.found(info, self._pin, trio.current_time())
        elif isinstance(step, Create):
            self._info = await self._create(consumer, step.filters)
            self._member.created()
        elif isinstance(step, Delete):
            try:
                await manager.delete_consumer(place.read_stream, consumer)
            except errors.NotFoundError as error:
                if not is_consumer_missing(error):
                    raise
            self._member.released()

    async def _create(self, name: str, filters: tuple[str, ...]) -> ConsumerInfo:
        place = self._place
        what = f"consumer {name!r} of stream {place.read_stream!r}"
        config = consumer_config(place, self._member_name, filters).as_dict()
        request = {"stream_name": place.read_stream, "config": config, "action": "create"}
        subject = subjects.consumer_creation(place.read_stream, name, None)
        with about(what):
            response = await self._jetstream.configure(what, subject, request, levels.of_consumer(config))
            info = sound(what, ConsumerInfo.from_response(response))
        self._jetstream.deliverers.heard(info)
        return info

    # From one consumer to the next.

    def _begin(self) -> None:
        place = self._place
        self._take_up(Consumer(self._jetstream, place.read_stream, place.consumer(self._member_name), self._info))
        self._pin, self._is_read = "", True
        with suppress(*_OVER):
            self._open()

    def _quit(self) -> None:
        """Read the consumer no longer. Synchronous."""
        self._pin, self._is_read = self._decisions.pin, False
        # The end of the one that was is not the feed's.
        self._inbox = PullInbox(self._connection.new_inbox())
        super()._undo()
        self._strays += len(self._sizes) - len(self)
        self._give_back_buffered()
        self._sizes.clear()

    async def _settle(self) -> None:
        if self._is_read:
            self._quit()
        last = self._held[-1].reply if self._held else ""
        while not all(map(_is_settled, self._held)):
            await self._park(Wait(trio.current_time() + LOOK_EVERY))
        self._held.clear()
        if last:
            with suppress(errors.Error), trio.move_on_after(RESPONSE_LIMIT):
                await self._connection.request(last, IN_PROGRESS)
        self._member.settled()

    def _fail(self, error: Exception) -> None:
        if self._ended or not isinstance(error, errors.ConsumerGoneError):
            super()._fail(error)
            return
        self._api.deliverers.gone(self._consumer.stream, self._consumer.name)
        self._quit()
        self._member.gone(error)
        if self._parked is not None:
            self._parked()

    # Its end.

    def _undo(self) -> None:
        super()._undo()
        if self._is_read and self._decisions.pin:
            consumer = self._consumer
            subject = f"{self._api.prefix}.CONSUMER.UNPIN.{consumer.stream}.{consumer.name}"
            self._connection.publish_aside(subject, _UNPIN, passing=True)


def _is_settled(held: JetStreamMsg) -> bool:
    """Say whether nobody need wait for a verdict on a message: there is one, or it comes too late."""
    return (
        held.__standing__() is not Standing.OPEN or held.due <= trio.current_time() or bool(held.__deliverer__().void)
    )


@asynccontextmanager
async def partition(
    nursery: trio.Nursery, jetstream: Api[Publishing], place: Place, name: str
) -> AsyncIterator[PartitionFeed]:
    """Read what a member of a group is given.

    Args:
        nursery: Where the tasks live.
        jetstream: Where the group is.
        place: The group.
        name: The member's name.

    Raises:
        trionats.errors.GroupNotFoundError: There is no such group.
        trionats.errors.GroupChangedError: Its configuration cannot be read.
        trionats.errors.APIError: The server is too old.
        ValueError: The group is static, and this is none of its members.
    """
    await require(jetstream, place)
    kv = await find_bucket(jetstream, place)
    stored, revision = await find_group(kv, place)
    if not place.elastic and name not in stored.group.members:
        raise ValueError(
            f"open_partition: member is {name!r}: {place} has {', '.join(map(repr, stored.group.members))}"
        )
    member = Member(place, name, stored.group, revision, JITTER)
    async with watching(nursery, kv.__entries__(place.key), LAST_PER_SUBJECT, "fail") as configs:
        feed = PartitionFeed(jetstream, place, name, member, kv, configs)
        async with feeding(nursery, feed, feed._go_on):
            yield feed
