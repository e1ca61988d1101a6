"""What an object is made of: each kind of data that a put takes, whose it stays, and what is told of the progress."""

from __future__ import annotations

import array
import codecs
import errno
import gzip
import io
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.fake_jetstream import FULL, FakeObjects
from tests.fakes import Frame, matches
from tests.worlds import cut_into, open_bucket, settled, until
from trionats import api, errors
from trionats._jetstream.objects import chunks, sources

MIB = 1024 * 1024
CHUNKS = "$O.b.C.>"
LETTERS = bytes(range(100))
TENS = cut_into(10)
WELCOME = "bytes, text, a path, a binary file, or a stream or an async iterable of bytes"

autojump = pytest.mark.usefixtures("autojump_clock")


class Pieces(trio.abc.ReceiveStream):
    """A stream, an iterable and a file, which give what they are told to, and remember whether somebody closed them."""

    def __init__(self, *pieces: Any, fails: Exception | None = None) -> None:  # noqa: ANN401 - what it should not give, too
        self.pieces = list(pieces)
        self.fails = fails
        self.closed = False

    async def receive_some(self, max_bytes: int | None = None) -> Any:  # noqa: ANN401
        await trio.lowlevel.checkpoint()
        return self.read(max_bytes)

    def read(self, _: int | None = None, /) -> Any:  # noqa: ANN401
        if self.pieces:
            return self.pieces.pop(0)
        if self.fails is not None:
            raise self.fails
        return b""

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True

    @property
    def stream(self) -> Any:  # noqa: ANN401
        return self

    @property
    def file(self) -> Any:  # noqa: ANN401
        return Face(self, read=self.read)

    @property
    def async_file(self) -> Any:  # noqa: ANN401
        return Face(self, read=self.receive_some)

    @property
    def iterable(self) -> Any:  # noqa: ANN401
        return Iterated(self)


class Face:
    """What has these methods, and can be closed."""

    def __init__(self, owner: Pieces, **methods: Callable[..., Any]) -> None:
        vars(self).update(methods, close=owner.close, aclose=owner.aclose)


class Iterated:
    def __init__(self, owner: Pieces) -> None:
        self.owner = owner
        self.aclose = owner.aclose

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401
        await trio.lowlevel.checkpoint()
        if not self.owner.pieces and self.owner.fails is None:
            raise StopAsyncIteration
        return self.owner.read()


KINDS = ("stream", "file", "async_file", "iterable")


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """Cut data into pieces of these sizes; the last one is the rest."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    return [*pieces, data[start:]] if data[start:] else pieces


# -- exactly what it holds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 100])
@pytest.mark.parametrize("piece", [1, 3, 10, 20, 1000])
async def test_chunks_are_exact_whatever_a_reader_gives(kind: str, size: int, piece: int) -> None:
    """Short reads, exact multiples, one byte, nothing at all: none becomes a short chunk, and no last one is lost."""
    data = LETTERS[:size]
    given = Pieces(*cut(data, [piece] * (size // piece)))
    async with open_bucket() as (bucket, store, _, _):
        info = await store.put("n", getattr(given, kind), TENS)
        assert bucket.contents() == {"n": data}
        assert [len(chunk) for chunk in bucket.data(info.nuid)[:-1]] == [10] * max(-(-size // 10) - 1, 0)
        assert (info.size, info.chunks) == (size, -(-size // 10))
    assert not given.closed, "it is whose it was"


async def test_an_empty_piece_of_an_iterable_is_not_its_end() -> None:
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", Pieces(b"", b"one", b"", b"", b"two", b"").iterable)
    assert bucket.contents() == {"n": b"onetwo"}


@pytest.mark.parametrize(
    "data",
    [
        LETTERS,
        bytearray(LETTERS),
        memoryview(LETTERS),
        memoryview(bytearray(LETTERS)),
        memoryview(bytearray(LETTERS)).toreadonly(),
        memoryview(array.array("B", LETTERS)),
        memoryview(array.array("I", LETTERS)),
        memoryview(LETTERS + LETTERS)[:100],
        memoryview(bytes(byte for one in LETTERS for byte in (one, 0)))[::2],
        memoryview(LETTERS).cast("B", (10, 10)),
    ],
    ids=lambda data: type(data).__name__,
)
@pytest.mark.parametrize("size", [100, 7])
async def test_memory_of_every_shape_is_stored_as_its_bytes(
    data: bytes | bytearray | memoryview, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK_SIZE", size)
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", data, TENS)
    assert bucket.contents() == {"n": LETTERS}


async def test_memory_that_is_changed_while_it_is_read_is_an_object_of_what_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its digest is that of what was sent, not of what it looked like before or behind it."""
    monkeypatch.setattr(sources, "BLOCK_SIZE", 20)
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 20)
    data = bytearray(100)
    async with open_bucket() as (bucket, store, _, _):

        def change(done: int, _: int | None) -> None:
            data[:] = bytes([done]) * 100

        await store.put("n", data, TENS, change)
        [stored] = bucket.contents().values()
        assert stored[:20] == bytes(20)
        assert len(set(stored)) > 1
        data += b"it is ours again"


async def test_a_buffer_that_a_reader_uses_again_and_again_is_read_each_time() -> None:
    async def reader() -> AsyncGenerator[bytearray | memoryview]:
        buffer = bytearray(5)
        for number in range(20):
            buffer[:] = LETTERS[number * 5 : number * 5 + 5]
            yield memoryview(buffer) if number % 2 else buffer

    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", reader(), TENS)  # type: ignore[arg-type]
    assert bucket.contents() == {"n": LETTERS}


async def test_a_channel_of_bytes_is_an_iterable_like_any_other() -> None:
    sender, receiver = trio.open_memory_channel[bytes](10)
    for piece in cut(LETTERS, [30, 30]):
        sender.send_nowait(piece)
    sender.close()
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", receiver)
    assert bucket.contents() == {"n": LETTERS}


# -- files ---------------------------------------------------------------------------------------------------------------


async def test_a_path_is_read_and_closed_and_a_file_is_read_from_where_it_stands_and_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    path.write_bytes(LETTERS)
    async with open_bucket() as (bucket, store, _, _):
        before = len(os.listdir("/proc/self/fd"))
        await store.put("path", path)
        await store.put("trio's path", trio.Path(path))
        with os.scandir(tmp_path) as [entry]:
            await store.put("entry", entry)
        assert len(os.listdir("/proc/self/fd")) == before
        with path.open("rb") as file, path.open("r+b", buffering=0) as raw, io.BytesIO(LETTERS) as memory:
            for name, one in {"file": file, "raw": raw, "memory": memory}.items():
                one.seek(10)
                await store.put(name, one)
                assert (one.closed, one.tell()) == (False, 100)
                await store.put(f"rest of {name}", one)
        async with await trio.open_file(path, "rb") as file_of_trio:
            await store.put("trio", file_of_trio)
            assert not file_of_trio.closed
        with tempfile.NamedTemporaryFile() as temporary:
            temporary.write(LETTERS)
            temporary.seek(0)
            await store.put("temporary", temporary)
        contents = bucket.contents()
    whole = dict.fromkeys(["path", "trio's path", "entry", "trio", "temporary"], LETTERS)
    parts = dict.fromkeys(["file", "raw", "memory"], LETTERS[10:])
    assert contents == whole | parts | dict.fromkeys([f"rest of {name}" for name in parts], b"")


@pytest.mark.parametrize("as_text", [True, False])
async def test_put_file_names_the_object_after_the_file(as_text: bool, tmp_path: Path) -> None:
    path = tmp_path / "näme.bin"
    path.write_bytes(LETTERS)
    given = str(path) if as_text else path
    async with open_bucket() as (bucket, store, _, _):
        info = await store.put_file(given, meta=api.ObjectMeta(description="d"))
        assert (info.name, info.description) == ("näme.bin", "d")
        await store.put_file(given, "other")
        assert bucket.contents() == {"näme.bin": LETTERS, "other": LETTERS}


@pytest.mark.parametrize(("change", "now"), [(b"and more", LETTERS + b"and more"), (None, LETTERS[:60])])
async def test_a_file_that_grows_or_shrinks_while_it_is_read_is_an_object_of_what_was_read(
    change: bytes | None, now: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK_SIZE", 20)
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 20)
    path = tmp_path / "log"
    path.write_bytes(LETTERS)
    told: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        if not told:
            with path.open("ab") as file:
                file.write(change) if change else file.truncate(60)
        told.append((done, total))

    async with open_bucket() as (bucket, store, _, _):
        info = await store.put_file(path, "n", TENS, progress)
        assert bucket.contents() == {"n": now}
        assert info.size == len(now)
    assert told[0] == (10, 100)
    assert told[-1] == (len(now), len(now))


async def test_of_a_file_that_is_no_plain_one_nobody_knows_how_much_will_come(tmp_path: Path) -> None:
    """What is made up as it is read has a size of 0, and a compressed file that of something else."""
    compressed = tmp_path / "letters.gz"
    compressed.write_bytes(gzip.compress(LETTERS))
    reading, writing = os.pipe()
    os.write(writing, LETTERS)
    os.close(writing)
    async with open_bucket() as (bucket, store, _, _):
        for name in ("made up", "compressed", "pipe"):
            told: list[tuple[int, int | None]] = []

            def progress(done: int, total: int | None, told: list[tuple[int, int | None]] = told) -> None:
                told.append((done, total))

            if name == "made up":
                info = await store.put(name, Path("/proc/version"), TENS, progress)
            elif name == "compressed":
                with gzip.open(compressed) as file:
                    info = await store.put(name, file, TENS, progress)
            else:
                with open(reading, "rb") as pipe:  # noqa: ASYNC230 - what is in it is there
                    info = await store.put(name, pipe, TENS, progress)
            assert info.size
            assert {total for _, total in told} <= {None, info.size}
            assert told[-1] == (info.size, info.size)
        contents = bucket.contents()
    assert contents["compressed"] == contents["pipe"] == LETTERS
    assert contents["made up"]


async def test_a_file_that_cannot_be_opened_says_so_before_anything_is_sent(tmp_path: Path) -> None:
    async with open_bucket() as (bucket, store, _, _):
        for call in (store.put_file(tmp_path / "none"), store.put("n", tmp_path / "none")):
            with pytest.raises(FileNotFoundError, match="none"):
                await call
        with pytest.raises(IsADirectoryError):
            await store.put_file(tmp_path)
        with (tmp_path / "new").open("wb") as file, pytest.raises(io.UnsupportedOperation):
            await store.put("n", file)
        for name in ("/", ""):
            with pytest.raises(errors.InvalidObjectNameError, match="is empty"):
                await store.put_file(name)
        wrong: Any = 5
        with pytest.raises(TypeError, match="put_file: path must be text or a path, not int"):
            await store.put_file(wrong)
        assert not bucket.server.sent("PUB")


# -- what is no data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "not NoneType"),
        ([b"a", b"b"], "not list"),
        (iter([b"a"]), "not list_iterator"),
        (array.array("B", b"a"), "not array"),
        (io.StringIO("text"), "not a file opened as text"),
        (trio.wrap_file(io.StringIO("text")), "not a file opened as text"),
        (io.TextIOWrapper(io.BytesIO(b"text")), "not a file opened as text"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
async def test_what_cannot_be_data_is_refused_by_its_name(data: Any, text: str) -> None:  # noqa: ANN401
    async with open_bucket() as (bucket, store, _, _):
        with pytest.raises(TypeError, match=f"^object 'n' in bucket 'b': its data must be {WELCOME}, {text}$"):
            await store.put("n", data)
        assert not bucket.server.sent("PUB")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("piece", "wrong"), [("text", "str"), (5, "int"), (None, "NoneType"), ([b"a"], "list")])
async def test_a_piece_that_is_not_bytes_is_refused_and_nothing_is_left(
    kind: str,
    piece: object,
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one before anything is sent."""
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 20)
    text = f"^object 'n' in bucket 'b': its data must come as bytes, not {wrong}$"
    async with open_bucket() as (bucket, store, _, _):
        with pytest.raises(TypeError, match=text):
            await store.put("n", getattr(Pieces(piece), kind))
        assert not bucket.server.sent("PUB")
        await store.put("n", b"old")
        with pytest.raises(TypeError, match=text):
            await store.put("n", getattr(Pieces(LETTERS, piece), kind), TENS)
        assert bucket.contents() == {"n": b"old"}


async def test_text_that_no_look_at_the_file_shows_is_refused_when_it_comes() -> None:
    async with open_bucket() as (bucket, store, _, _):
        with tempfile.NamedTemporaryFile("w+") as file, pytest.raises(TypeError, match="come as bytes, not str"):
            await store.put("n", file)
        with pytest.raises(TypeError, match="come as bytes, not str"):
            await store.put("n", codecs.getreader("utf-8")(io.BytesIO(b"text")))
        assert not bucket.server.sent("PUB")


async def test_a_keyword_that_puts_do_not_have_is_refused_with_a_hint() -> None:
    async with open_bucket() as (_, store, _, _):
        wrong: Any = {"timeout": 5}
        with pytest.raises(TypeError, match=r"takes no timeout: with trio.fail_after\(1\): await store.put\(...\)"):
            await store.put("n", b"", **wrong)
        with pytest.raises(TypeError, match=r"takes no timeout: .* store.put_file\(...\)"):
            await store.put_file("n", **wrong)


# -- what fails ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [
        OSError("the disk is gone"),
        trio.BrokenResourceError("the peer is gone"),
        # What the user's own source may raise, of another stream, is not taken for the bucket's.
        errors.MaxPayloadError(),
        errors.DisconnectedError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_a_source_raises_comes_out_as_it_is_and_nothing_is_left(
    kind: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 20)
    async with open_bucket() as (bucket, store, nc, _):
        await store.put("n", b"old")
        given = Pieces(LETTERS[:35], LETTERS[35:], fails=error)
        with pytest.raises(type(error)) as caught:
            await store.put("n", getattr(given, kind), TENS)
        assert caught.value is error
        assert bucket.server.sent("PUB", CHUNKS)
        assert bucket.contents() == {"n": b"old"}
        assert not given.closed
        assert nc.statistics().pending_requests == 0


async def test_a_failing_put_reads_no_further_and_leaves_the_rest_to_whose_it_is() -> None:
    """Also where it comes so slowly that the window is never full."""
    given = Pieces(*cut(LETTERS, [10] * 9))
    async with open_bucket() as (bucket, store, nc, _):

        async def slowly() -> AsyncGenerator[bytes]:
            while piece := given.read():
                yield piece
                await nc.flush()

        bucket.answer(CHUNKS, None, FULL)
        async with aclosing(slowly()) as source:
            with pytest.raises(errors.BadRequestError, match="maximum bytes exceeded"):
                await store.put("n", source, TENS)
            assert len(given.pieces) == 7
            assert await anext(source) == LETTERS[30:40]
    assert not bucket.messages


async def never_anything() -> AsyncIterator[bytes]:
    while True:
        yield b""


async def never_enough() -> AsyncIterator[bytes]:
    while True:
        yield b"x"


@pytest.mark.parametrize("source", [never_anything, never_enough])
async def test_a_source_that_never_waits_and_never_ends_can_be_cancelled(
    source: Callable[[], AsyncIterator[bytes]],
) -> None:
    """And it leaves others their turn: else nobody would get as far as to cancel it."""
    async with open_bucket() as (bucket, store, _, nursery), aclosing(source()) as pieces:  # type: ignore[type-var]
        with trio.CancelScope() as scope:

            async def soon() -> None:
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(soon)
            await store.put("n", pieces, api.ObjectMeta(options=api.ObjectMetaOptions(max_chunk_size=1_000_000)))
        assert scope.cancelled_caught
        assert not bucket.server.sent("PUB $O")


class Pipe:
    """A path that remembers whether somebody was about to open it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = False

    def __fspath__(self) -> str:
        self.asked = True
        return str(self.path)


async def test_a_named_pipe_that_nobody_writes_into_can_be_cancelled_and_is_closed_later(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "pipe")
    os.mkfifo(pipe.path)
    async with open_bucket() as (bucket, store, _, nursery):
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await until(lambda: pipe.asked)
                scope.cancel()

            nursery.start_soon(cancel)
            await store.put("n", pipe)
        assert scope.cancelled_caught
        assert not bucket.server.sent("PUB")
        # The thread that still waits for it opens it, and closes it.
        both = os.open(pipe.path, os.O_RDWR)
        os.write(both, b"x")
        os.close(both)
        await until(lambda: is_unread(pipe.path))


def is_unread(pipe: Path) -> bool:
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno == errno.ENXIO
    return False


class Distant:
    """A file that says only when it is read that it has to be awaited."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int, /) -> Awaitable[bytes]:
        async def later() -> bytes:
            await trio.lowlevel.checkpoint()
            return self._data.read(size)

        return later()


async def test_a_file_whose_read_is_awaited_and_no_coroutine_function_is_read_like_any_other() -> None:
    async with open_bucket() as (bucket, store, _, _):
        data = bytes(range(250)) * 4000
        assert (await store.put("n", Distant(data))).size == len(data)
        assert bucket.contents() == {"n": data}


@autojump
async def test_a_source_may_take_as_long_as_it_likes() -> None:
    """What stands still while we wait for it is not the server."""

    async def slow() -> AsyncGenerator[bytes]:
        for piece in cut(LETTERS, [10] * 9):
            await trio.sleep(200)
            yield piece

    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", slow(), TENS)
    assert bucket.contents() == {"n": LETTERS}


@autojump
async def test_a_put_that_waits_for_its_source_can_be_cancelled_and_leaves_nothing() -> None:
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", b"old")
        await sender.send_all(LETTERS)
        with trio.move_on_after(5):
            await store.put("n", receiver, TENS)
        assert bucket.server.sent("PUB", CHUNKS)
        assert bucket.contents() == {"n": b"old"}
        # It is still open, and whose it was.
        await sender.send_all(b"more")
        assert await receiver.receive_some() == b"more"


# -- progress --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "path", *KINDS])
@pytest.mark.parametrize("size", [0, 5, 100])
async def test_progress_is_told_in_bytes_that_are_stored_and_ends_with_all_of_them(
    kind: str, size: int, tmp_path: Path
) -> None:
    data = LETTERS[:size]
    path = tmp_path / "letters"
    path.write_bytes(data)
    given: Any = {"bytes": data, "path": path}.get(kind) or getattr(Pieces(data), kind, data)
    told: list[tuple[int, int | None]] = []
    async with open_bucket() as (bucket, store, _, _):

        def progress(done: int, total: int | None) -> None:
            assert trio.lowlevel.current_task() is task
            assert sum(map(len, bucket.payloads(CHUNKS))) >= done
            assert not bucket.metas, "it comes before the object is there"
            told.append((done, total))

        task = trio.lowlevel.current_task()
        await store.put("n", given, TENS, progress)
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    if kind in ("bytes", "path") and size:
        assert {total for _, total in told} == {size}


async def test_what_a_progress_callback_raises_fails_the_put() -> None:
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", b"old")

        def stop(done: int, _: int | None) -> None:
            if done >= 50:
                raise KeyError(done)

        with pytest.raises(KeyError, match="50"):
            await store.put("n", LETTERS, TENS, stop)
    assert bucket.contents() == {"n": b"old"}


async def test_a_progress_callback_that_cannot_be_called_is_refused() -> None:
    async def later(done: int, total: int | None) -> None:
        pytest.fail(f"{done} of {total}")

    async with open_bucket() as (bucket, store, _, _):
        wrong: Any = 5
        with pytest.raises(TypeError, match="object 'n' in bucket 'b': progress must be a function, not int"):
            await store.put("n", b"", progress=wrong)
        with pytest.raises(TypeError, match="progress is called and not awaited; it must be no coroutine function"):
            await store.put("n", b"", progress=later)
        assert not bucket.server.sent("PUB")


class Later:
    """A callback that would have to be awaited, which no look at it shows."""

    async def __call__(self, done: int, total: int | None) -> None:
        pytest.fail(f"{done} of {total}")


class Future:
    """What can be awaited, and is no coroutine."""

    def __await__(self) -> Iterator[None]:
        pytest.fail("awaited")


@pytest.mark.parametrize("progress", [Later(), lambda *args: Later()(*args), lambda *_: Future()])
async def test_a_progress_callback_that_turns_out_to_be_awaited_fails_the_transfer(progress: Any) -> None:  # noqa: ANN401
    """Else it would never run, and nobody would hear of it."""
    async with open_bucket() as (bucket, store, _, _):
        with pytest.raises(TypeError, match="object 'n' in bucket 'b': progress is called and not awaited"):
            await store.put("n", b"data", progress=progress)
        assert not bucket.chunks
        bucket.add("n", b"data")
        with pytest.raises(TypeError, match="get of object 'n': progress is called and not awaited"):
            await store.get("n", progress)


@autojump
async def test_a_streamed_put_keeps_no_more_than_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source is not read on while what it gave is not acknowledged."""
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 50)
    given = Pieces(*[b"x" * 10] * 100)
    async with open_bucket() as (bucket, store, _, nursery):
        bucket.hook = lambda frame: "silence" if matches(CHUNKS, frame.subject) else None
        nursery.start_soon(store.put, "n", given.stream, TENS)
        await settled()
        assert len(given.pieces) == 94
        nursery.cancel_scope.cancel()


class Refusing(FakeObjects):
    """Refuses each second chunk for a while because it has too much to do."""

    def __init__(self, server: Any, bucket: str) -> None:  # noqa: ANN401
        super().__init__(server, bucket)
        self.count = 0
        self.hook = self.refuse

    def refuse(self, frame: Frame) -> Any:  # noqa: ANN401
        self.count += matches(CHUNKS, frame.subject)
        busy = matches(CHUNKS, frame.subject) and self.count % 2 == 0 and self.count < 20
        return {"error": {"code": 429, "err_code": 10167, "description": "too many requests"}} if busy else None


@autojump
async def test_progress_never_goes_back_when_chunks_are_sent_again() -> None:
    told: list[int] = []
    async with open_bucket(Refusing) as (bucket, store, _, _):
        await store.put("n", LETTERS, TENS, lambda done, _: told.append(done))
        assert bucket.contents() == {"n": LETTERS}
    assert told == sorted(set(told))
    assert told[-1] == 100
