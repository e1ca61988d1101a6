"""What was delivered and handed to nobody is given back, also what is still on its way."""

from __future__ import annotations

import pytest

from tests.fake_consumers import SECOND
from tests.worlds import ConsumerWorld, Receiver, open_consumer_world, seam, settled
from trionats._core.messaging import Retirable
from trionats._jetstream.messages.giving_back import leave

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def pulled(w: ConsumerWorld, batch: int, receiver: Receiver) -> Retirable:
    attachment = seam(w.nc).attach("_INBOX.x", receiver)
    await w.nc.publish("$JS.API.CONSUMER.MSG.NEXT.S.C", b'{"batch": %d}' % batch, "_INBOX.x")
    await w.nc.flush()
    return attachment


async def test_what_is_there_and_what_is_on_its_way_is_given_back() -> None:
    async with open_consumer_world(2) as w:
        receiver = Receiver()
        attachment = await pulled(w, 4, receiver)
        w.server.link.stall(down=True)
        w.store(2)
        leave(attachment, w.consumer.__deliverer__(), receiver.told)
        await settled()
        w.server.link.resume()
        await w.nc.flush()
        await w.nc.flush()
        assert w.fake.verdicts == {sequence: [b"-NAK"] for sequence in (1, 2, 3, 4)}
        assert (len(receiver.told), receiver.told[-1]) == (3, None), "two, and then the end"


@pytest.mark.parametrize(
    "config", [{"max_deliver": 3}, {"ack_policy": "none"}, {"bind": True}], ids=lambda config: str(config)
)
async def test_what_must_not_be_given_back_is_left(config: dict[str, object]) -> None:
    """A NAK counts as a delivery: where those are limited, or nobody knows, the ack wait does it."""
    async with open_consumer_world(2, **config) as w:  # type: ignore[arg-type]
        receiver = Receiver()
        leave(await pulled(w, 4, receiver), w.consumer.__deliverer__(), receiver.told)
        await w.nc.flush()
        assert w.fake.verdicts == {}
        assert "_INBOX.x" not in [subscription.subject for subscription in w.server.subscriptions]


async def test_it_is_left_or_given_back_where_that_was_said() -> None:
    async with open_consumer_world(2, max_deliver=3) as w:
        receiver = Receiver()
        leave(await pulled(w, 4, receiver), w.consumer.__deliverer__(), receiver.told, nak=True)
        await w.nc.flush()
        assert sorted(w.fake.verdicts) == [1, 2]
    async with open_consumer_world(2) as w:
        receiver = Receiver()
        leave(await pulled(w, 4, receiver), w.consumer.__deliverer__(), receiver.told, nak=False)
        await w.nc.flush()
        assert w.fake.verdicts == {}


async def test_nothing_is_given_back_to_a_consumer_whose_life_is_over() -> None:
    """Its numbers would mean the next one's messages."""
    async with open_consumer_world(1, ack_wait=5 * SECOND) as w:
        receiver, deliverer = Receiver(), w.consumer.__deliverer__()
        attachment = await pulled(w, 4, receiver)
        deliverer.void = "was reset"
        leave(attachment, deliverer, receiver.told, nak=True)
        await w.nc.flush()
        assert w.fake.verdicts == {}
