"""Objects read as a stream and over links, against a bucket in memory: what is received, and what is left when that fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fake_jetstream import UNAVAILABLE, FakeObjects, digest_of
from tests.fakes import Frame
from tests.worlds import assert_failures_are_let_go, open_bucket, run, settled, takes
from trionats import ObjectStream, errors
from trionats._jetstream.objects import chunks

pytestmark = pytest.mark.usefixtures("autojump_clock")

PARTS = (b"first.", b"second.", b"third.")
WHOLE = b"".join(PARTS)
NUMBERS = [b"%d" % number for number in range(9)]
MISSING = "get of object 'n' from bucket 'b': 2 of 3 chunks with 13 of 19 bytes are there"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let four chunks be sent ahead, so that there are some behind them."""
    monkeypatch.setattr(chunks, "READ_CHUNKS", 4)


async def read(stream: ObjectStream, pieces: list[bytes] | None = None) -> list[bytes]:
    """Read to the end; what has come is kept when that fails."""
    pieces = [] if pieces is None else pieces
    async for piece in stream:
        pieces.append(bytes(piece))
    return pieces


# -- a stream ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_stream_gives_the_data_chunk_by_chunk_and_then_its_end_again_and_again(count: int) -> None:
    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", *PARTS[:count])
        async with store.open_object("n") as stream:
            assert isinstance(stream, trio.abc.ReceiveStream)
            assert (stream.info.name, stream.info.chunks) == ("n", count)
            assert await read(stream) == [*PARTS[:count]]
            await nc.flush()
            assert not bucket.consumers, "nothing is left at its end, before it is closed"
            for _ in range(3):
                assert await stream.receive_some() == b""
            assert repr(stream) == "<ObjectStream of 'n' in bucket 'b', at its end>"
        assert repr(stream) == "<ObjectStream of 'n' in bucket 'b', closed>"


async def test_no_more_chunks_are_asked_for_than_fit_into_the_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would not be known how much is on its way, and the next request had to wait for the end of the one before."""
    monkeypatch.setattr(chunks, "READ_BYTES", 4 * 1300)
    parts = [bytes(1000)] * 40
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *parts)
        async with store.open_object("n") as stream:
            assert await read(stream) == parts
        pulls = [json.loads(frame.payload) for frame in bucket.server.sent("PUB", "$JS.API.CONSUMER.MSG.NEXT.>")]
        assert pulls[0] == {"batch": 4, "max_bytes": 5200, "no_wait": True}
        assert {pull["batch"] for pull in pulls[1:10]} == {2}


@settings(max_examples=60)
@given(
    parts=st.lists(st.binary(max_size=9), max_size=6),
    sizes=st.lists(st.integers(1, 12) | st.none(), min_size=1, max_size=6),
)
def test_whatever_the_sizes_that_are_asked_for_the_bytes_are_the_same(
    parts: list[bytes], sizes: list[int | None]
) -> None:
    """Also where another client has stored chunks without bytes, which are no end."""

    async def main() -> None:
        async with open_bucket() as (bucket, store, _, _):
            bucket.add("n", *parts)
            received = []
            async with store.open_object("n") as stream:
                for asked in _around(sizes):
                    piece = await stream.receive_some(asked)
                    assert asked is None or len(piece) <= asked
                    if not piece:
                        break
                    received.append(piece)
            assert b"".join(received) == b"".join(parts)

    run(main)


def _around(sizes: list[int | None]) -> Iterator[int | None]:
    while True:
        yield from sizes


@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (0, ValueError, "receive_some: max_bytes must be at least 1, not 0"),
        (-5, ValueError, "receive_some: max_bytes must be at least 1, not -5"),
        ("1", TypeError, "receive_some: max_bytes must be a whole number, not str"),
        (1.0, TypeError, "receive_some: max_bytes must be a whole number, not float"),
        (True, TypeError, "receive_some: max_bytes must be a whole number, not bool"),
    ],
)
async def test_what_is_no_size_is_refused(size: Any, error: type[Exception], text: str) -> None:  # noqa: ANN401
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        async with store.open_object("n") as stream:
            with pytest.raises(error, match=text):
                await stream.receive_some(size)
            assert await read(stream) == [*PARTS]


async def test_receiving_and_closing_are_checkpoints() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        async with store.open_object("n") as stream:
            for _ in range(4):  # what waits here, what has to come, and the end
                with trio.testing.assert_checkpoints():
                    await stream.receive_some(10)
            with trio.testing.assert_checkpoints():
                await stream.aclose()
            with trio.testing.assert_checkpoints():
                await stream.aclose()


@pytest.mark.parametrize("how", ["aclose", "close", "leave"])
async def test_a_stream_that_was_closed_says_so_also_to_who_waits_and_leaves_nothing(how: str, few: None) -> None:
    async with open_bucket() as (bucket, store, nc, nursery):
        bucket.add("n", *NUMBERS)
        over = trio.Event()

        async def wait(stream: ObjectStream) -> None:
            with pytest.raises(trio.ClosedResourceError, match="this object stream was closed"):
                await read(stream)
            over.set()

        async with store.open_object("n") as stream:
            bucket.server.link.stall(down=True)
            nursery.start_soon(wait, stream)
            await settled()
            if how == "aclose":
                await stream.aclose()
            elif how == "close":
                stream.close()
        await over.wait()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        bucket.server.link.resume()
        await nc.flush()
        assert not bucket.consumers


async def test_one_task_at_a_time_receives(few: None) -> None:
    async with open_bucket() as (bucket, store, _, nursery):
        bucket.add("n", *NUMBERS)
        pieces: list[bytes] = []
        async with store.open_object("n") as stream:
            bucket.server.link.stall(down=True)
            nursery.start_soon(read, stream, pieces)
            await settled()
            with pytest.raises(trio.BusyResourceError, match="another task receives from this object stream"):
                await stream.receive_some()
            bucket.server.link.resume()
            await settled()
            assert await stream.receive_some() == b"", "the other one has read it all"
            assert pieces == NUMBERS


async def test_a_stream_is_opened_with_async_with_and_nothing_else() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        with pytest.raises(TypeError, match=r"open_object\(\) is entered with 'async with', not with 'with'"):
            with store.open_object("n"):
                pass
        with pytest.raises(TypeError, match=r"open_object\(\) is entered with 'async with', it cannot be awaited"):
            await store.open_object("n")
        assert not bucket.server.sent("PUB")


async def test_an_object_that_is_not_there_is_an_error_of_the_opening() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("gone", deleted=True)
        for name in ("n", "gone"):
            with pytest.raises(errors.ObjectNotFoundError, match=f"'{name}'"):
                async with store.open_object(name):
                    pytest.fail("it was opened")


async def test_missing_chunks_come_in_place_of_the_end_and_every_time() -> None:
    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", *PARTS)
        bucket.messages.pop(2)
        pieces: list[bytes] = []
        async with store.open_object("n") as stream:
            with takes(0, 10), pytest.raises(errors.ObjectIncompleteError, match=f"^{MISSING}$"):
                await read(stream, pieces)
            assert pieces == [*PARTS[:2]]
            with pytest.raises(errors.ObjectIncompleteError, match=f"^{MISSING}$"):
                await stream.receive_some()
            await nc.flush()
            assert not bucket.consumers
            assert repr(stream) == "<ObjectStream of 'n' in bucket 'b', failed>"


async def test_reading_that_fails_leaves_no_circle_behind() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        bucket.messages.pop(2)
        bucket.add("gone", deleted=True)

        async def streamed() -> None:
            async with store.open_object("n") as stream:
                await read(stream, [])

        await assert_failures_are_let_go(
            lambda: store.get("n"), lambda: store.get("gone"), lambda: store.get_info("other"), streamed
        )


async def test_missing_chunks_are_told_also_where_nobody_says_what_became_of_the_object() -> None:
    """What would be asked only to say it better does not hide it."""
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        bucket.messages.pop(2)
        async with store.open_object("n") as stream:
            bucket.hook = lambda frame: UNAVAILABLE if b"$O.b.M." in frame.payload else None
            for _ in range(2):
                with pytest.raises(errors.ObjectIncompleteError, match=MISSING):
                    await read(stream)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_what_is_wrong_with_the_first_chunk_or_with_none_is_an_error_of_the_opening(count: int) -> None:
    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", *PARTS[:count], digest=digest_of(b"other data"))
        bucket.forget("$O.b.C.>")
        error = errors.ObjectIncompleteError if count else errors.DigestMismatchError
        with takes(0, 10), pytest.raises(error, match="get of object 'n' from bucket 'b'"):
            async with store.open_object("n"):
                pytest.fail("it was opened")
        await nc.flush()
        assert not bucket.consumers


async def test_other_data_comes_in_place_of_the_end() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS, digest="SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=")
        async with store.open_object("n") as stream:
            with pytest.raises(errors.DigestMismatchError, match="get of object 'n' from bucket 'b': the data has the"):
                await read(stream)


@pytest.mark.parametrize("deleted", [False, True])
async def test_an_object_that_is_replaced_or_deleted_while_it_is_read_is_never_mixed(deleted: bool, few: None) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *NUMBERS)
        pieces: list[bytes] = []
        async with store.open_object("n") as stream:
            bucket.forget("$O.b.C.>")
            if deleted:
                bucket.add("n", deleted=True)
            else:
                bucket.store("$O.b.C.other", b"new", rollup=False)
                bucket.add("n", nuid="other", size=3, chunks=1, digest=digest_of(b"new"))
            text = "^get of object 'n' from bucket 'b': [0-9] of 9 chunks .*: the object was replaced or deleted while"
            for _ in range(2):
                with pytest.raises(errors.ObjectIncompleteError, match=text):
                    await read(stream, pieces)
        assert 0 < len(pieces) < 9
        assert pieces == NUMBERS[: len(pieces)]


@pytest.mark.parametrize("count", [1, 2])
async def test_an_object_that_is_replaced_before_anything_was_read_is_the_new_one(count: int) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS[:count])

        def replace(frame: Frame) -> Any:  # noqa: ANN401 - whatever a responder may answer
            if bucket.payloads("$O.b.C.nuid-n"):
                bucket.forget("$O.b.C.>")
                bucket.store("$O.b.C.other", b"new", rollup=False)
                bucket.add("n", nuid="other", size=3, chunks=1, digest=digest_of(b"new"))
            return bucket.create(frame) if "CONSUMER" in frame.subject else bucket.direct_get(frame)

        for asked in ("CONSUMER.CREATE", "DIRECT.GET"):
            bucket.server.on(f"$JS.API.{asked}.OBJ_b.>", replace, first=True)
        async with store.open_object("n") as stream:
            assert (stream.info.nuid, await read(stream)) == ("other", [b"new"])


async def test_who_does_not_read_for_an_hour_goes_on_then(few: None) -> None:
    """The server has forgotten the consumer by then, and no limit runs while nobody waits."""
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *NUMBERS)
        pieces = []
        made = 1
        async with store.open_object("n") as stream:
            for _ in range(3):
                pieces.append(await stream.receive_some())
                await trio.sleep(3600)
                # All that was asked for has come, and nobody asks for more.
                for name in [name for name, consumer in bucket.consumers.items() if not consumer.pulls]:
                    bucket.delete_consumer(name)
                made = bucket.made
            pieces += await read(stream)
        assert pieces == NUMBERS
        assert bucket.made > made >= 1, "another one was made"


async def test_what_was_not_received_is_not_asked_for(few: None) -> None:
    """Credit comes back with each chunk that is taken, and not before."""
    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", *NUMBERS)
        async with store.open_object("n") as stream:
            await nc.flush()
            [consumer] = bucket.consumers.values()
            assert consumer.delivered == 4
            received = [await stream.receive_some()]
            await nc.flush()
            assert consumer.delivered == 4, "half of the credit is not free yet"
            for _ in range(3):
                received.append(await stream.receive_some())
                await nc.flush()
                assert consumer.delivered <= len(received) + 4
            assert consumer.delivered > 4
            assert received == NUMBERS[:4]


async def test_a_stream_that_gets_nothing_fails_after_the_idle_limit(few: None) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *NUMBERS)
        async with store.open_object("n") as stream:
            await trio.sleep(1000)
            bucket.server.on("$JS.API.CONSUMER.MSG.NEXT.OBJ_b.*", lambda _: None, first=True)
            with takes(30, 33), pytest.raises(errors.TimeoutError, match="the server has not answered for 30 s"):
                await read(stream)


async def test_a_stream_goes_on_after_a_reconnect(few: None) -> None:
    async with open_bucket(reconnect_delay=lambda _: 0.1) as (bucket, store, nc, _):
        bucket.add("n", *NUMBERS)
        async with store.open_object("n") as stream:
            pieces = [await stream.receive_some()]
            bucket.server.cut()
            pieces += await read(stream)
            assert pieces == NUMBERS
            assert nc.statistics().reconnects == 1


@pytest.mark.parametrize("how", ["aclose", "drain"])
async def test_a_client_that_is_closed_or_drained_ends_a_stream_with_an_error(how: str, few: None) -> None:
    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", *NUMBERS)
        async with store.open_object("n") as stream:
            await getattr(nc, how)()
            for _ in range(2):
                with pytest.raises(errors.ConnectionClosedError):
                    await read(stream)


# -- links -------------------------------------------------------------------------------------------------------------


def link(bucket: str, name: str | None) -> dict[str, Any]:
    """What stands in an info of a link, as nats.js writes it: with no nuid, size, chunks or digest."""
    to = {"bucket": bucket} if name is None else {"bucket": bucket, "name": name}
    return {"nuid": None, "size": None, "chunks": None, "digest": None, "options": {"link": to}}


async def test_links_lead_to_the_object_in_this_bucket_and_in_another_one() -> None:
    async with open_bucket() as (bucket, store, _, _):
        other = FakeObjects(bucket.server, "other")
        bucket.add("near", *PARTS)
        other.add("far", b"other", b"data")
        bucket.add("to-near", **link("b", "near"))
        bucket.add("to-far", **link("other", "far"))
        bucket.add("to-to-far", **link("b", "to-far"))
        for name, target, data in (
            ("to-near", ("near", "b"), WHOLE),
            ("to-far", ("far", "other"), b"otherdata"),
            ("to-to-far", ("far", "other"), b"otherdata"),
        ):
            result = await store.get(name)
            assert ((result.info.name, result.info.bucket), result.data) == (target, data)
            async with store.open_object(name) as stream:
                assert (stream.info.name, stream.info.bucket) == target
                assert b"".join(await read(stream)) == data
            info = await store.get_info(name)
            assert info.is_link()
            assert info.name == name, "of the link itself"


@pytest.mark.parametrize(
    ("to", "error", "text"),
    [
        (
            ("b", "none"),
            errors.ObjectNotFoundError,
            "object 'l' in bucket 'b' -> link to 'none' in 'b': there is no object 'none' in bucket 'b'",
        ),
        (
            ("b", "gone"),
            errors.ObjectDeletedError,
            "object 'l' in bucket 'b' -> link to 'gone' in 'b': object 'gone' in bucket 'b' was deleted",
        ),
        (
            ("missing", "n"),
            errors.BucketNotFoundError,
            "object 'l' in bucket 'b' -> link to 'n' in 'missing': there is no object store 'missing'",
        ),
        (
            ("no.bucket", "n"),
            errors.InvalidBucketNameError,
            "object 'l' in bucket 'b' -> link to 'n' in 'no.bucket': .*'no.bucket'",
        ),
        (
            ("b", None),
            errors.LinkIsABucketError,
            "object 'l' in bucket 'b' is a link to bucket 'b', which has no data",
        ),
        (
            ("b", "l"),
            errors.BadObjectMetaError,
            "object 'l' in bucket 'b': its links go round in a circle: object 'l' in bucket 'b' -> link to 'l' in 'b'",
        ),
    ],
)
async def test_a_link_that_leads_to_no_data_is_an_error_that_names_the_way(
    to: tuple[str, str | None], error: type[errors.Error], text: str
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        missing = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_missing", lambda _: missing)
        bucket.add("gone", deleted=True)
        bucket.add("l", **link(*to))
        with pytest.raises(error, match=f"^{text}"):
            await store.get("l")
        with pytest.raises(error, match=f"^{text}"):
            async with store.open_object("l"):
                pytest.fail("it was opened")
