"""JetStream on a real server: management through nats-py's manager, acknowledged publish, and what refusals say."""

from __future__ import annotations

import base64
import inspect
from typing import Any

import pytest
import trio
from multidict import MultiDict
from nats.js.manager import JetStreamManager

from tests.worlds import open_live, open_stream, open_world, respond, unique, until
from trionats import JetStream, api, errors, open_subscription
from trionats.testing import TrioNatsServer


def test_every_coroutine_of_nats_pys_manager_is_here_without_a_timeout() -> None:
    for name, theirs in inspect.getmembers(JetStreamManager, inspect.iscoroutinefunction):
        if name.startswith("_"):
            continue
        ours = getattr(JetStream, name)
        assert inspect.iscoroutinefunction(ours)
        expected = [parameter for parameter in inspect.signature(theirs).parameters if parameter != "timeout"]
        given = inspect.signature(ours).parameters
        assert list(given)[: len(expected)] == expected, name


async def test_streams_are_managed(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        assert (await js.stream_info(name)).config.name == name
        changed = await js.update_stream((await js.stream_info(name)).config, description="changed")
        assert changed.config.description == "changed"
        assert await js.find_stream_name_by_subject(f"{subject}.x") == name
        for number in range(3):
            await js.publish(f"{subject}.{number}", b"data")
        assert (await js.stream_info(name, f"{subject}.>")).state.subjects == {f"{subject}.{n}": 1 for n in range(3)}
        assert await js.purge_stream(name, subject=f"{subject}.0")
        assert await js.purge_stream(name, keep=1)
        assert (await js.stream_info(name)).state.messages == 1
        assert name in [info.config.name for info in await js.streams_info()]
        assert name in [info.config.name for info in await js.streams_info_iterator()]
        assert (await js.account_info()).streams >= 1


async def test_messages_are_read_and_deleted(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        await js.publish(f"{subject}.a", b"one", headers={"K": "v"})
        await js.publish(f"{subject}.a", b"")
        config = (await js.stream_info(name)).config
        await js.update_stream(config, allow_direct=True)
        for direct in (False, True):
            first = await js.get_msg(name, 1, direct=direct)
            assert (first.subject, first.seq, first.data) == (f"{subject}.a", 1, b"one")
            assert (first.headers or {})["K"] == "v"
            last = await js.get_last_msg(name, f"{subject}.a", direct=direct)
            assert (last.seq, last.data) == (2, None)
            following = await js.get_msg(name, 2, f"{subject}.a", direct=direct, next=True)
            assert following.seq == 2
            with pytest.raises(errors.NotFoundError, match=f"message 9 of stream '{name}'"):
                await js.get_msg(name, 9, direct=direct)
        assert await js.delete_msg(name, 1)
        with pytest.raises(errors.NotFoundError, match=f"message 1 of stream '{name}'"):
            await js.get_msg(name, 1)


async def test_consumers_are_managed(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        info = await js.add_consumer(name, name="c", filter_subject=f"{subject}.*.>", ack_wait=5)
        assert (info.name, info.config.filter_subject, info.config.ack_wait) == ("c", f"{subject}.*.>", 5)
        await js.add_consumer(name, api.ConsumerConfig(durable_name="d", filter_subject=f"{subject}.x"))
        assert (await js.consumer_info(name, "d")).config.durable_name == "d"
        assert [info.name for info in await js.consumers_info(name)] == ["c", "d"]
        assert (await js.pause_consumer(name, "c", "2199-01-01T00:00:00Z")).paused
        assert not (await js.resume_consumer(name, "c")).paused
        assert await js.delete_consumer(name, "c")
        with pytest.raises(errors.NotFoundError, match=f"consumer 'c' of stream '{name}': consumer not found"):
            await js.consumer_info(name, "c")


async def test_lists_are_complete(nats_server: TrioNatsServer) -> None:
    """The server gives 256 at a time."""
    async with open_stream(nats_server) as w:
        js, name = w.js, w.stream.name
        names = [f"c{number:03}" for number in range(300)]
        for consumer in names:
            await js.add_consumer(name, name=consumer, mem_storage=True, ack_policy=api.AckPolicy.NONE)
        assert sorted(info.name for info in await js.consumers_info(name)) == names
        assert len(await js.consumers_info(name, offset=290)) == 10


async def test_refusals_name_what_was_refused(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name = w.js, w.stream.name
        response = await js.api_request(f"STREAM.INFO.{name}", {"deleted_details": True})
        assert response["config"]["name"] == name
        with pytest.raises(errors.NotFoundError, match=r"STREAM.INFO.nothing: stream not found") as caught:
            await js.api_request("STREAM.INFO.nothing")
        assert (caught.value.code, caught.value.err_code) == (404, 10059)
        for call in (js.stream_info("nothing"), js.delete_stream("nothing"), js.purge_stream("nothing")):
            with pytest.raises(errors.NotFoundError, match=r"stream 'nothing': stream not found .*10059"):
                await call
        with pytest.raises(errors.BadRequestError, match=f"stream '{name}': .*name already in use"):
            await js.add_stream(name=name, subjects=["another"])
        with pytest.raises(errors.NotFoundError, match=r"stream for subject 'nobody\.home'"):
            await js.find_stream_name_by_subject("nobody.home")
        with pytest.raises(errors.APIError, match=f"consumer 'c' of stream '{name}'"):
            await js.add_consumer(name, name="c", filter_subjects=["a.*", "a.b"])
        for bad in ("", "a.b", "a b", "a>"):
            with pytest.raises(ValueError, match=f"stream {bad!r}: "):
                await js.stream_info(bad)


async def test_a_server_without_jetstream_is_said_to_have_none(server_executable: object) -> None:
    async with open_live() as (_, nc, _):
        js = nc.jetstream()
        for call in (js.account_info(), js.stream_info("s"), js.create_object_store("b"), js.api_request("INFO")):
            with pytest.raises(errors.ServiceUnavailableError, match=r"JetStream is not enabled.*at '\$JS.API'"):
                await call


async def test_a_publish_is_acknowledged_and_a_second_one_of_its_id_is_a_duplicate(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        ack = await js.publish(f"{subject}.a", "tëxt", headers={"K": ["1", "2"]}, stream=name)
        assert (ack.stream, ack.seq, ack.duplicate) == (name, 1, None)
        assert (await js.get_msg(name, 1)).data == "tëxt".encode()
    async with open_stream(nats_server) as w:
        js, subject = w.js, w.stream.name
        first = await js.publish(f"{subject}.a", b"1", msg_id="id")
        second = await js.publish(f"{subject}.a", b"2", msg_id="id")
        assert (second.seq, second.duplicate) == (first.seq, True)


async def test_expectations_that_do_not_hold_are_refused(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        where = f"{subject}.a"
        await js.publish(where, b"1", expected_last_seq=0, expected_last_subject_seq=0, msg_id="first")
        await js.publish(where, b"2", expected_last_seq=1, expected_last_msg_id="first")
        for publish in (
            js.publish(where, b"", expected_last_seq=1),
            js.publish(where, b"", expected_last_subject_seq=1),
            js.publish(where, b"", expected_last_msg_id="other"),
            js.publish(where, b"", stream="other"),
        ):
            with pytest.raises(errors.BadRequestError, match=f"publish to '{where}'") as caught:
                await publish
            assert caught.value.err_code in (10060, 10070, 10071)
        assert (await js.stream_info(name)).state.messages == 2


async def test_messages_that_live_for_a_time_of_any_size(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        with pytest.raises(errors.APIError, match=r"publish to .* per-message TTL is disabled"):
            await js.publish(f"{subject}.a", b"", msg_ttl=1)
        await js.update_stream((await js.stream_info(name)).config, allow_msg_ttl=True)
        await js.publish(f"{subject}.a", b"", msg_ttl=1)

        async def gone() -> bool:
            return (await js.stream_info(name)).state.messages == 0

        await until(gone, pause=0.1)
        # It was written as `1e+06s` from a million seconds on, and rounded to six digits.
        good: list[Any] = [1_000_000, 1234567, 9_223_372_036, "never"]
        for ttl in good:
            ack = await js.publish(f"{subject}.a", b"", msg_ttl=ttl)
            assert ((await js.get_msg(name, ack.seq)).headers or {})["Nats-TTL"] == (
                "never" if ttl == "never" else f"{ttl:d}s"
            )
        bad: list[Any] = [1.5, 0, float("nan"), "5s", True]
        for ttl in bad:
            kind = TypeError if isinstance(ttl, (str, bool)) else ValueError
            with pytest.raises(kind, match=rf"publish to '{subject}\.a': msg_ttl"):
                await js.publish(f"{subject}.a", b"", msg_ttl=ttl)
        assert (await js.stream_info(name)).state.messages == 4


async def test_a_repeated_publish_is_no_conflict_with_itself(nats_server: TrioNatsServer) -> None:
    """A stream of one replica looks at expectations first."""
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        expecting: tuple[dict[str, Any], ...] = (
            {"expected_last_subject_seq": 0},
            {"expected_last_seq": 1},
            {"expected_last_msg_id": "id1"},
        )
        for number, expected in enumerate(expecting):
            where = f"{subject}.{number}"
            first = await js.publish(where, b"", msg_id=f"id{number}", **expected)
            again = await js.publish(where, b"", msg_id=f"id{number}", **expected)
            assert (again.stream, again.seq, again.duplicate) == (name, first.seq, True)
            with pytest.raises(errors.BadRequestError, match=f"publish to '{where}': wrong last"):
                await js.publish(where, b"", msg_id="other", **expected)
            with pytest.raises(errors.BadRequestError, match=f"publish to '{where}': wrong last"):
                await js.publish(where, b"", **expected)
            if number == 0:
                await js.publish(f"{subject}.x", b"", msg_id="filler")
                await js.purge_stream(name, subject=f"{subject}.x")
                await js.delete_stream(name)
                await js.add_stream(name=name, subjects=[f"{subject}.>"], storage=api.StorageType.MEMORY)
                await js.publish(f"{subject}.first", b"", msg_id="first")
        assert (await js.stream_info(name)).state.messages == 3


async def test_a_repeated_publish_finds_itself_behind_what_it_expected(nats_server: TrioNatsServer) -> None:
    """Whatever was stored since, under the same subject or others."""
    async with open_stream(nats_server) as w:
        for number, name in enumerate(("expected_last_seq", "expected_last_subject_seq")):
            where = f"{w.stream.name}.{number}"
            before = await w.js.publish(where, b"before")
            expected: dict[str, Any] = {name: before.seq}
            first = await w.js.publish(where, b"", msg_id=name, **expected)
            for _ in range(3):
                await w.js.publish(where, b"since")
            again = await w.js.publish(where, b"", msg_id=name, **expected)
            assert (again.seq, again.duplicate) == (first.seq, True)
            with pytest.raises(errors.BadRequestError):
                await w.js.publish(where, b"", msg_id="other", **expected)
        assert (await w.js.stream_info(w.stream.name)).state.messages == 10


async def test_an_id_outlives_its_message(nats_server: TrioNatsServer) -> None:
    """So a repeated publish behind a purge is a duplicate, and nothing is stored."""
    async with open_stream(nats_server) as w:
        first = await w.js.publish(w.subject, b"", msg_id="id")
        assert await w.stream.purge() == 1
        again = await w.js.publish(w.subject, b"", msg_id="id")
        assert (again.seq, again.duplicate) == (first.seq, True)
        assert (await w.stream.info()).state.messages == 0


async def test_a_publish_rolls_up_a_subject_or_all(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_rollup_hdrs=True) as w:
        for subject in ("a", "a", "b"):
            await w.js.publish(f"{w.stream.name}.{subject}", b"x")
        await w.js.publish(f"{w.stream.name}.a", b"x", rollup="sub")
        assert (await w.js.stream_info(w.stream.name)).state.messages == 2
        await w.js.publish(f"{w.stream.name}.a", b"x", rollup="all")
        assert (await w.js.stream_info(w.stream.name)).state.messages == 1


async def test_an_expected_sequence_may_be_that_of_other_subjects(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        name = w.stream.name
        last = await w.js.publish(f"{name}.a.1", b"x")
        expected: dict[str, Any] = {"expected_last_subject_seq_subject": f"{name}.a.*"}
        ack = await w.js.publish(f"{name}.b", b"x", expected_last_subject_seq=last.seq, **expected)
        assert ack.seq == 2
        with pytest.raises(errors.BadRequestError, match="wrong last sequence: 1"):
            await w.js.publish(f"{name}.b", b"x", expected_last_subject_seq=ack.seq, **expected)


async def test_an_expired_message_uncovers_the_one_before_it(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_msg_ttl=True) as w:
        before = await w.js.publish(w.subject, b"before")
        await w.js.publish(w.subject, b"passes", msg_ttl=1)

        async def uncovered() -> bool:
            return (await w.js.get_last_msg(w.stream.name, w.subject)).data == b"before"

        await until(uncovered, pause=0.05)
        assert (await w.js.get_last_msg(w.stream.name, w.subject)).seq == before.seq


async def test_a_shorter_max_age_takes_the_servers_own_window_along(nats_server: TrioNatsServer) -> None:
    """Reading, changing and writing works, though the server tells its own default like a choice."""
    async with open_stream(nats_server) as w:
        js, name = w.js, w.stream.name
        for max_age, window in ((3600, 120), (60, 60), (30, 30), (0.5, 0.5)):
            config = (await js.stream_info(name)).config
            config.max_age = max_age
            changed = (await js.update_stream(config)).config
            assert (changed.max_age, changed.duplicate_window) == (max_age, window)
        # By keyword, too.
        config = (await js.update_stream(config, max_age=60, duplicate_window=60)).config
        assert (await js.update_stream(config, max_age=20)).config.duplicate_window == 20


async def test_a_window_that_somebody_chose_is_left_alone(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name = w.js, w.stream.name
        config = (await js.update_stream((await js.stream_info(name)).config, duplicate_window=50)).config
        for call in (
            js.update_stream(config, max_age=20),
            js.update_stream(config, max_age=60, duplicate_window=120),
            js.update_stream(config, max_age=60, duplicate_window=100),
            js.add_stream(name=unique(), subjects=["w"], max_age=60, duplicate_window=100),
        ):
            with pytest.raises(errors.APIError, match=r"stream '\w+': duplicates window can not be larger"):
                await call


async def test_what_was_read_can_be_written_whatever_the_server_added(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        config = (await js.stream_info(name)).config
        config.subject_delete_marker_ttl = 60
        marked = (await js.update_stream(config)).config
        assert (marked.allow_msg_ttl, marked.allow_rollup_hdrs) == (True, True)
        for changes in ({"max_age": 30}, {"description": "d"}, {"max_msgs": 5}, {"subject_delete_marker_ttl": None}):
            config = (await js.stream_info(name)).config
            await js.update_stream(config, **changes)
        again: dict[str, Any] = {"name": unique(), "subjects": [f"again{subject}"], "subject_delete_marker_ttl": 60}
        for _ in range(2):
            assert (await js.add_stream(**again)).config.allow_msg_ttl
        await js.delete_stream(again["name"])
        consumer = (await js.add_consumer(name, name="c", backoff=[1, 2], max_deliver=3)).config
        for backoff in ([5.0, 6.0], [0.5]):
            consumer.backoff = backoff
            assert (await js.add_consumer(name, consumer)).config.backoff == backoff


async def test_the_longest_age_and_the_oddest_numbers_that_a_server_keeps_are_read(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        odd: dict[str, Any] = dict.fromkeys(("max_age", "duplicate_window", "max_msgs"), 2**63 - 1)
        odd["consumer_limits"] = {"inactive_threshold": -1}
        config = {"name": name, "subjects": [f"{subject}.>"], "storage": "memory", "allow_msg_ttl": True, **odd}
        await js.api_request(f"STREAM.UPDATE.{name}", config)
        read = (await js.stream_info(name)).config
        assert (round(read.max_age or 0), read.max_msgs) == (9_223_372_037, 2**63 - 1)
        assert name in [info.config.name for info in await js.streams_info()]
        consumer = {"name": "c", "ack_policy": "explicit", "ack_wait": 2**63 - 1, "max_ack_pending": -1}
        await js.api_request(f"CONSUMER.CREATE.{name}.c", {"stream_name": name, "config": consumer})
        assert round((await js.consumer_info(name, "c")).config.ack_wait or 0) == 9_223_372_037


async def test_a_publish_that_no_stream_takes_is_tried_again_and_then_says_so(nats_server: TrioNatsServer) -> None:
    """ADR-22: a stream without a leader is back in a moment."""
    async with open_stream(nats_server) as w:
        js, subject = w.js, w.stream.name
        start = trio.current_time()
        with pytest.raises(errors.NoStreamResponseError, match=r"publish to 'nobody\.home'"):
            await js.publish("nobody.home", b"data")
        assert trio.current_time() - start >= 0.5
        name = unique()

        async def late() -> None:
            await trio.sleep(0.3)
            await js.add_stream(name=name, subjects=[f"late{subject}"], storage=api.StorageType.MEMORY)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            assert (await js.publish(f"late{subject}", b"data")).stream == name
        await js.delete_stream(name)


async def test_a_reply_that_is_none_of_a_stream_is_an_error(nats_server: TrioNatsServer) -> None:
    async with open_world(nats_server) as (_, nc, nursery), open_subscription(nursery, nc, "echo.here") as rx:
        nursery.start_soon(respond, rx)
        with pytest.raises(errors.APIError, match=r"publish to 'echo\.here': what came back is no JetStream response"):
            await nc.jetstream().publish("echo.here", b"data")
        rx.stop()


async def test_buckets_are_configured_as_asked_and_those_that_cannot_be_are_named(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js = w.js
        bucket = unique()
        config = api.ObjectStoreConfig(description="d", ttl=60, max_bytes=10_000_000)
        store = await js.create_object_store(bucket, config, compression=True, metadata={"owner": "me"})
        stream = (await js.stream_info(store.stream)).config
        assert stream.subjects == [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"]
        assert (stream.description, stream.max_age, stream.max_bytes) == ("d", 60, 10_000_000)
        assert (stream.compression, (stream.metadata or {})["owner"]) == (api.StoreCompression.S2, "me")
        assert (stream.discard, stream.allow_rollup_hdrs, stream.allow_direct) == (api.DiscardPolicy.NEW, True, True)
        assert config == api.ObjectStoreConfig(description="d", ttl=60, max_bytes=10_000_000)
        # The same again is no change, something else is refused.
        await js.create_object_store(config=config, bucket=bucket, compression=True, metadata={"owner": "me"})
        with pytest.raises(errors.BadRequestError, match=f"object store '{bucket}'.*already in use"):
            await js.create_object_store(bucket, description="other")
        assert (await js.object_store(bucket)).bucket == bucket
        assert await js.delete_object_store(bucket)
        for bad in ("", "a.b", "a b", "ä", "a*", "x" * 300):
            for call in (js.create_object_store(bad), js.object_store(bad), js.delete_object_store(bad)):
                with pytest.raises(errors.InvalidBucketNameError, match="bucket '"):
                    await call
        for call in (js.object_store("nothing"), js.delete_object_store("nothing")):
            with pytest.raises(errors.BucketNotFoundError, match="there is no object store 'nothing'"):
                await call
        wrong: list[Any] = [None, 5, b"b"]
        for name in wrong:
            for find in (js.object_store, js.delete_object_store):
                with pytest.raises(TypeError, match="must be text, not"):
                    await find(name)


async def test_headers_that_repeat_arrive_repeated_also_beside_the_calls_own(nats_server: TrioNatsServer) -> None:
    """What is forwarded with `headers=msg.headers` must be what came."""
    async with open_stream(nats_server) as w:
        js, name, subject = w.js, w.stream.name, w.stream.name
        repeated = MultiDict([("A", "1"), ("A", "2"), ("Nats-Msg-Id", "theirs"), ("B", "3")])
        await js.publish(f"{subject}.a", b"", headers=repeated)
        await js.publish(f"{subject}.a", b"", headers=repeated, msg_id="ours")
        for sequence, msg_id in ((1, "theirs"), (2, "ours")):
            raw = await js.api_request(f"STREAM.MSG.GET.{name}", {"seq": sequence})
            lines = sorted(base64.b64decode(raw["message"]["hdrs"]).decode().split("\r\n")[1:-2])
            assert lines == ["A: 1", "A: 2", "B: 3", f"Nats-Msg-Id: {msg_id}"]
        for options in ({}, {"msg_id": "x"}):
            with pytest.raises(TypeError, match=f"publish to '{subject}.a': headers must be a mapping, not list"):
                await js.publish(f"{subject}.a", b"", headers=["A"], **options)  # type: ignore[arg-type]
