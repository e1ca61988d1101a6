"""Managing consumers on a real server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.clusters import make_replicated_stream, open_cluster
from tests.worlds import open_live, open_stream, open_world, until
from trionats import JetStreamMsg, api, errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trionats import Consumer
    from trionats.testing import TrioNatsServer


async def pulled(consumer: Consumer, **more: Any) -> JetStreamMsg:  # noqa: ANN401 - any option
    msg = await consumer.next(**more)
    assert msg is not None
    return msg


async def test_creating_and_updating_are_strict(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        name = w.stream.name
        with pytest.raises(errors.BadRequestError, match=rf"consumer 'c' of stream '{name}': .*10149"):
            await w.js.update_consumer(name, api.ConsumerConfig(durable_name="c"))
        with pytest.raises(errors.NotFoundError, match=r"consumer 'c' .*10014"):
            await w.js.update_consumer(name, name="c", description="x")
        made = await w.js.create_consumer(name, durable_name="c")
        same = await w.js.create_consumer(name, durable_name="c")
        assert same.cached_info is not None
        assert made.cached_info is not None
        assert same.cached_info.created == made.cached_info.created, "as good"
        with pytest.raises(errors.BadRequestError, match=rf"consumer 'c' of stream '{name}': .*already exists.*10148"):
            await w.js.create_consumer(name, durable_name="c", description="another")
        changed = await w.js.create_or_update_consumer(name, durable_name="c", description="another")
        assert changed.cached_info is not None
        assert changed.cached_info.config.description == "another"
        assert changed.cached_info.created == made.cached_info.created
        assert (await w.js.create_or_update_consumer(name, durable_name="d")).name == "d"
        assert (await w.js.add_consumer(name)).name, "a new name"


async def test_an_ephemeral_consumer_that_exists_is_as_good_if_it_says_how_long_it_lives(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server) as w:
        for _ in range(2):
            assert (await w.js.create_consumer(w.stream.name, name="long", inactive_threshold=60)).name == "long"
        await w.js.create_consumer(w.stream.name, name="short")
        with pytest.raises(errors.BadRequestError, match="10148"):
            await w.js.create_consumer(w.stream.name, name="short")


async def test_a_change_by_keyword_changes_only_that(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        full: dict[str, Any] = {
            "durable_name": "c",
            "description": "before",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": 7,
            "ack_wait": 12.5,
            "max_deliver": 9,
            "backoff": [0.5, 1.5],
            "filter_subjects": [f"{w.stream.name}.a", f"{w.stream.name}.b"],
            "max_ack_pending": 77,
            "max_batch": 5,
            "metadata": {"k": "v"},
            "priority_groups": ["g"],
            "priority_policy": "overflow",
        }
        consumer = await w.js.create_consumer(w.stream.name, **full)

        async def raw() -> dict[str, Any]:
            config: dict[str, Any] = (await w.js.api_request(f"CONSUMER.INFO.{w.stream.name}.c"))["config"]
            return config

        before = await raw()
        await consumer.update(description="after")
        assert await raw() == {**before, "description": "after"}
        await w.js.update_consumer(w.stream.name, (await consumer.info()).config)
        assert await raw() == {**before, "description": "after"}, "what was read and written loses nothing"
        await w.js.update_consumer(w.stream.name, name="c", filter_subject=f"{w.stream.name}.a")
        assert (await raw())["filter_subject"] == f"{w.stream.name}.a"
        assert "filter_subjects" not in await raw()
        with pytest.raises(ValueError, match="keeps its own name"):
            await consumer.update(durable_name="d")


async def test_one_filter_stands_in_the_subject_however_it_is_given(nats_server: TrioNatsServer) -> None:
    """So that a user who is restricted by it may create the consumer, also with wildcards."""
    async with open_stream(nats_server) as w:
        name = w.stream.name
        rules = [f"$JS.API.CONSUMER.CREATE.{name}.*.{name}.a.*", "$JS.API.INFO"]
        users = {"publish": rules, "subscribe": "_INBOX.>"}
        config = f"authorization {{ users: [{{ user: u, password: p, permissions: {json.dumps(users)} }}] }}"
        async with open_live(config, jetstream=True, user="u", password="p") as (server, nc, _):
            assert server.running
            js = nc.jetstream()
            for filters in ({"filter_subject": f"{name}.a.*"}, {"filter_subjects": [f"{name}.a.*"]}):
                with pytest.raises(errors.NotFoundError, match="stream not found"):  # it was permitted to ask
                    await js.create_consumer(name, **filters)
            with pytest.raises(errors.PermissionsViolationError):
                await js.create_consumer(name, filter_subject=f"{name}.b")
        one = await w.js.create_consumer(name, filter_subjects=[f"{name}.a.*"])
        assert one.cached_info is not None
        assert one.cached_info.config.filter_subject == f"{name}.a.*"
        two = await w.js.create_consumer(name, filter_subjects=[f"{name}.a", f"{name}.b"])
        assert two.cached_info is not None
        assert two.cached_info.config.filter_subjects == [f"{name}.a", f"{name}.b"]


async def test_a_consumer_is_paused_and_resumed(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await w.js.create_consumer(w.stream.name, durable_name="c")
        future = datetime.now(UTC) + timedelta(hours=1)
        paused = await consumer.pause(future)
        assert paused.paused
        assert 3500 < (paused.pause_remaining or 0) <= 3600
        assert (await consumer.info()).paused
        assert not (await consumer.resume()).paused
        assert (await w.js.pause_consumer(w.stream.name, "c", "2100-01-01T00:00:00Z")).paused
        assert not (await w.js.pause_consumer(w.stream.name, "c", datetime(2020, 1, 1, tzinfo=UTC))).paused
        born = await w.js.create_consumer(w.stream.name, durable_name="d", pause_until=future)
        assert (await born.info()).paused
        with pytest.raises(errors.NotFoundError, match="consumer 'nobody'"):
            await w.js.resume_consumer(w.stream.name, "nobody")


@pytest.mark.level(4)
async def test_an_acknowledgement_from_before_a_reset_settles_nothing(nats_server: TrioNatsServer) -> None:
    """The server takes it for one of the message that has its number now."""
    async with open_stream(nats_server) as w:
        for number in range(4):
            await w.js.publish(w.subject, str(number).encode())
        consumer = await w.js.create_consumer(w.stream.name, durable_name="c")
        old = await pulled(consumer)
        done = await consumer.reset()
        assert (done.reset_seq, consumer.cached_info) == (1, done.info)
        with pytest.raises(errors.Error, match=r"consumer 'c' of stream .* was reset"):
            await old.ack()
        new = await pulled(consumer)
        assert new.data == old.data
        assert (await consumer.info()).num_ack_pending == 1, "nothing was settled"
        await w.nc.publish(old.reply, b"+ACK")  # what the client refuses

        async def settled() -> bool:
            return (await consumer.info()).num_ack_pending == 0

        await until(settled, within=20)
        await new.ack()


@pytest.mark.level(4)
async def test_a_reset_begins_behind_the_ack_floor_or_where_it_is_told(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        for number in range(4):
            await w.js.publish(w.subject, str(number).encode())
        consumer = await w.js.create_consumer(w.stream.name, durable_name="c")
        await (await pulled(consumer)).ack()
        await pulled(consumer)
        assert (await consumer.reset()).reset_seq == 2
        assert (await pulled(consumer)).data == b"1"
        assert (await consumer.reset(5)).reset_seq == 5, "what is not there yet"
        with pytest.raises(errors.BadRequestError, match="seq is 6, and the last message of the stream has 4"):
            await consumer.reset(6)
        with pytest.raises(errors.NotFoundError, match=r"consumer 'nobody' .*10014"):
            await w.js.reset_consumer(w.stream.name, "nobody")
        late: dict[str, Any] = {"deliver_policy": "by_start_sequence", "opt_start_seq": 3}
        begins = await w.js.create_consumer(w.stream.name, durable_name="d", **late)
        with pytest.raises(errors.BadRequestError, match=r"below start seq.*10204"):
            await begins.reset(2)


async def test_a_pin_is_taken_away(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await w.js.publish(w.subject, b"x")
        groups: dict[str, Any] = {"priority_groups": ["g"], "priority_policy": api.PriorityPolicy.PINNED_CLIENT}
        consumer = await w.js.create_consumer(w.stream.name, durable_name="c", **groups)
        msg = await pulled(consumer, group="g")
        [state] = (await consumer.info()).priority_groups or []
        assert state.pinned_client_id == msg.headers["Nats-Pin-Id"]
        await consumer.unpin("g")
        [state] = (await consumer.info()).priority_groups or []
        assert not state.pinned_client_id
        with pytest.raises(errors.BadRequestError, match="10160"):
            await consumer.unpin("other")


async def test_two_groups_share_one_pin_and_info_shows_the_first(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        groups: dict[str, Any] = {"priority_groups": ["g", "h"], "priority_policy": "pinned_client"}
        consumer = await w.js.create_consumer(w.stream.name, durable_name="c", **groups)
        assert [state.group for state in (await consumer.info()).priority_groups or []] == ["g"]


async def test_a_message_whose_deliveries_are_used_up_stays_in_a_work_queue_unseen(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, retention="workqueue") as w:
        await w.js.publish(w.subject, b"x")
        consumer = await w.js.create_consumer(w.stream.name, durable_name="c", max_deliver=1)
        await (await pulled(consumer)).nak()
        assert await consumer.next(expires=0.2) is None

        async def forgotten() -> bool:
            info = await consumer.info()
            return (info.num_pending, info.num_ack_pending) == (0, 0)

        await until(forgotten, within=20)
        assert (await w.stream.info()).state.messages == 1


async def test_a_deleted_consumer_is_gone_and_its_messages_void(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await w.js.publish(w.subject, b"x")
        consumer = await w.js.create_consumer(w.stream.name, durable_name="c")
        msg = await pulled(consumer)
        assert await consumer.delete()
        with pytest.raises(errors.Error, match="was deleted"):
            await msg.ack()
        with pytest.raises(errors.NotFoundError, match="10014"):
            await consumer.info()


async def test_binding_asks_for_nothing(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        bound = await w.js.consumer("NO_STREAM", "nobody", bind=True)
        assert bound.cached_info is None
        with pytest.raises(errors.NotFoundError):
            await bound.info()
        with pytest.raises(ValueError, match=r"consumer 'a\.b'"):
            await w.js.consumer(w.stream.name, "a.b", bind=True)


REFUSED: list[tuple[Callable[[Consumer], Awaitable[object]], str]] = [
    (lambda c: c.step_down(), "clustering"),
    (lambda c: c.update(deliver_policy="new"), "deliver policy can not be updated"),
]


@pytest.mark.parametrize(("call", "text"), REFUSED)
async def test_what_the_server_refuses_says_which_consumer(
    nats_server: TrioNatsServer, call: Callable[[Consumer], Awaitable[object]], text: str
) -> None:
    async with open_stream(nats_server) as w:
        consumer = await w.js.create_consumer(w.stream.name, durable_name="c")
        with pytest.raises(errors.APIError, match=rf"consumer 'c' of stream '{w.stream.name}': .*{text}"):
            await call(consumer)


@pytest.mark.live(seconds=60)
async def test_a_consumers_leader_steps_down_and_lists_are_read_whole_by_three_nodes(
    server_executable: object,
) -> None:
    async with open_cluster(jetstream=True) as cluster, open_world(cluster.servers["n1"]) as (_, nc, _):
        js = nc.jetstream()
        name = "S"
        await make_replicated_stream(nc)
        stream = await js.stream(name)
        await stream.update(allow_direct=True, subjects=["S.>"])
        consumer = await js.create_consumer(name, durable_name="c")
        assert await consumer.step_down()

        await js.publish(f"{name}.0", b"")
        await (await pulled(consumer, expires=20)).ack_sync()
        await js.purge_stream(name)
        for number in range(50):
            await js.publish(f"{name}.{number % 10}", b"")
            # Whichever replica answers: the one that was just stored is in it.
            assert len(await stream.get_msgs(seq=2, batch=100)) == number + 1
            assert len(await stream.get_last_msgs(">")) == min(number + 1, 10)
            assert (await stream.get_last_msg(f"{name}.>")).seq == number + 2
        assert len(await stream.get_last_msgs(">", up_to_seq=6)) == 5
        assert len(await stream.get_last_msgs(">", up_to_time=datetime.now(UTC))) == 10
