"""Objects read into files, against a bucket in memory: the file is there whole or not at all. On the real clock, as threads are."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.fake_jetstream import FakeObjects, digest_of
from tests.worlds import cut_short, open_bucket
from trionats import errors
from trionats._jetstream.objects import chunks

PARTS = (b"first.", b"second.", b"third.")
WHOLE = b"".join(PARTS)
OTHER = digest_of(b"other data")


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def replace(bucket: FakeObjects, data: bytes) -> None:
    """Replace object "n" by another client's."""
    bucket.forget("$O.b.>")
    bucket.store("$O.b.C.other", data, rollup=False)
    bucket.add("n", nuid="other", size=len(data), chunks=1, digest=digest_of(data))


# -- a file ------------------------------------------------------------------------------------------------------------


async def test_get_file_writes_the_data_and_gives_the_info(tmp_path: Path) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        bucket.add("empty")
        for given, name in ((tmp_path / "a", "n"), (str(tmp_path / "b"), "empty")):
            assert (await store.get_file(name, given)).name == name
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (WHOLE, b"")
    assert names_in(tmp_path) == ["a", "b"]


async def test_a_longer_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old" * 100)
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        await store.get_file("n", path)
    assert path.read_bytes() == WHOLE
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("failure", ["missing", "digest", "gone", "disk", "full"])
async def test_a_get_file_that_fails_leaves_the_old_file_and_no_other(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    expected: type[Exception] = OSError
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        if failure == "missing":
            bucket.messages.pop(1)
            expected = errors.ObjectIncompleteError
        elif failure == "digest":
            bucket.forget("$O.b.C.>")
            bucket.add("n", *PARTS, digest=OTHER)
            expected = errors.DigestMismatchError
        elif failure == "gone":
            bucket.add("n", deleted=True)
            expected = errors.ObjectDeletedError
        else:
            name = "fsync" if failure == "disk" else "write"

            def fail(*_: object) -> None:
                raise OSError(errno.ENOSPC, "no space left on device")

            monkeypatch.setattr(os, name, fail)
        with pytest.raises(expected):
            await store.get_file("n", path)
        monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


async def test_a_get_file_that_is_cancelled_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", *PARTS)
        bucket.server.on("$JS.API.CONSUMER.MSG.NEXT.OBJ_b.*", lambda _: None, first=True)
        await cut_short(store.get_file, "n", path, after=0.1)
        await nc.flush()
        assert not bucket.consumers
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


async def test_an_object_that_is_replaced_while_it_is_read_is_written_whole(tmp_path: Path) -> None:
    """Nothing of the first one stays behind the end of the second, which is shorter."""
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        bucket.messages.pop(2)
        told: list[tuple[int, int | None]] = []

        def replace_it(done: int, total: int | None) -> None:
            told.append((done, total))
            if total == len(WHOLE):
                replace(bucket, b"new")

        info = await store.get_file("n", tmp_path / "file", replace_it)
        assert info.nuid == "other"
        assert told == [(13, 19), (3, 3)]
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
async def test_a_new_file_has_the_permissions_that_open_gives_and_one_in_place_of_another_those_of_the_other(
    tmp_path: Path,
) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    secret, opened = tmp_path / "secret", tmp_path / "opened"
    secret.write_bytes(b"")
    secret.chmod(0o640)
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        before = os.umask(0o027)
        try:
            opened.write_bytes(b"")
            await store.get_file("n", tmp_path / "new")
            await store.get_file("n", secret)
        finally:
            os.umask(before)
    assert mode(tmp_path / "new") == mode(opened) == 0o640
    assert mode(secret) == 0o640
    secret.chmod(0o604)
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        await store.get_file("n", secret)
    assert mode(secret) == 0o604


async def test_what_a_symbolic_link_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, path = tmp_path / "elsewhere" / "file", tmp_path / "link"
    target.write_bytes(b"old")
    path.symlink_to(target)
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        await store.get_file("n", path)
    assert path.is_symlink()
    assert target.read_bytes() == WHOLE
    assert names_in(target.parent) == ["file"]


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("", ValueError, "get_file of object 'n': path '' is none"),
        ("a\0b", ValueError, "get_file of object 'n': path .* is none"),
        (5, TypeError, "get_file of object 'n': path must be text or an os.PathLike, not int"),
        (b"bytes", TypeError, "get_file of object 'n': path must be text or an os.PathLike, not bytes"),
        (None, TypeError, "get_file of object 'n': path must be text or an os.PathLike, not NoneType"),
        (Path("directory"), IsADirectoryError, "directory"),
        ("new/", IsADirectoryError, "'new/'"),
        ("nowhere/.", IsADirectoryError, "'nowhere/.'"),
        (Path("nowhere/file"), FileNotFoundError, "nowhere/file"),
        (Path("pipe"), ValueError, "get_file of object 'n': what stands at path '.*pipe' is no file"),
    ],
)
async def test_where_no_file_can_be_nothing_is_asked_for(
    path: Any,  # noqa: ANN401 - what it should not be
    error: type[Exception],
    text: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        with pytest.raises(error, match=text):
            await store.get_file("n", tmp_path / path if isinstance(path, Path) else path)
        assert not bucket.server.sent("PUB")


async def test_a_directory_that_nothing_can_be_written_into_is_named_by_the_path_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "something else")

    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *PARTS)
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(PermissionError, match=r"Permission denied: '.*/file'"):
            await store.get_file("n", tmp_path / "file")
        monkeypatch.undo()
    assert not names_in(tmp_path)


# -- progress ----------------------------------------------------------------------------------------------------------


async def test_progress_is_told_up_to_the_last_byte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(chunks, "READ_CHUNKS", 8)
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", *[b"%d" % number for number in range(9)])
        bucket.add("one", b"1234")
        bucket.add("empty")
        for name, size in (("n", 9), ("one", 4), ("empty", 0)):
            for into_file in (False, True):
                told: list[tuple[int, int | None]] = []

                def tell(done: int, total: int | None, told: list[tuple[int, int | None]] = told) -> None:
                    told.append((done, total))

                await (store.get_file(name, tmp_path / "f", tell) if into_file else store.get(name, tell))
                assert [done for done, _ in told] == sorted({done for done, _ in told})
                assert {total for _, total in told} == {size}
                assert told[-1] == (size, size)
                assert name != "n" or len(told) > 1


async def test_what_progress_raises_ends_the_reading_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(done: int, total: int | None) -> None:
        raise ArithmeticError(f"{done} of {total}")

    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", *PARTS)
        with pytest.raises(ArithmeticError, match="19 of 19"):
            await store.get("n", fail)
        with pytest.raises(ArithmeticError, match="19 of 19"):
            await store.get_file("n", tmp_path / "file", fail)
        await nc.flush()
        assert not bucket.consumers
    assert not names_in(tmp_path)


@pytest.mark.parametrize("progress", [5, "text", trio.sleep])
async def test_what_cannot_be_called_is_refused_before_anything_is_asked(
    progress: Any,  # noqa: ANN401 - what it should not be
    tmp_path: Path,
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        with pytest.raises(TypeError, match="get of object 'n': progress"):
            await store.get("n", progress)
        with pytest.raises(TypeError, match="get_file of object 'n': progress"):
            await store.get_file("n", tmp_path / "file", progress)
        assert not bucket.server.sent("PUB")
