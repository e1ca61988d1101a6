"""Backups, against a server in memory: whole and in their place, or not there at all. On the real clock, as threads are."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from tests.archives import STREAM, new_archive, old_archive, plain
from tests.fake_backups import FakeBackups
from tests.fake_jetstream import FakeStream, refusal
from tests.fakes import NO_RESPONDERS, FakeServer, Frame
from tests.worlds import cut_short, hold_back, lose, open_world, regain, settled, until
from trionats import Client, JetStream, Stream, api, errors
from trionats._jetstream.backups import directories, restoring, saving
from trionats._protocol.jetstream.backups.incoming import Incoming

Told = list[tuple[int, int | None]]


class Here(NamedTuple):
    """A stream that can be backed up, and where it is."""

    backups: FakeBackups
    stream: Stream
    js: JetStream
    nc: Client
    server: FakeServer


@asynccontextmanager
async def open_backups(archive: bytes = b"", **options: Any) -> AsyncIterator[Here]:  # noqa: ANN401 - any option
    async with open_world(**options) as (server, nc, _):
        FakeStream(server, "S")
        js = nc.jetstream()
        yield Here(FakeBackups(server, "S", archive), await js.stream("S"), js, nc, server)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def backed_up(here: Here, directory: Path) -> Path:
    await here.stream.backup(directory / "b")
    return directory / "b"


# -- made --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "name"), [(new_archive, "stream.arc.s2"), (old_archive, "stream.tar.s2")])
async def test_a_backup_is_a_directory_of_two_files(make: Callable[..., bytes], name: str, tmp_path: Path) -> None:
    told: Told = []
    async with open_backups(make(b"m" * 5000)) as here:
        state = await here.stream.backup(tmp_path / "b", lambda *far: told.append(far))
        assert (state.messages, state.last_seq) == (2, 2)
        assert names_in(tmp_path) == ["b"]
        assert names_in(tmp_path / "b") == sorted(["backup.json", name])
        assert (tmp_path / "b" / name).read_bytes() == here.backups.archive
        said = json.loads((tmp_path / "b" / "backup.json").read_text())
        assert said == {"config": here.backups.config, "state": here.backups.state}
        assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700
        size = len(here.backups.archive)
        assert (told[-2:], {total for _, total in told[:-1]}) == ([(size, None), (size, size)], {None})
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        await here.nc.flush()
        assert here.backups.acknowledged == len(here.backups.pieces) - 1
        assert not here.backups.heard, "nobody listens any more"


async def test_pieces_may_come_before_the_response(tmp_path: Path) -> None:
    async with open_backups() as here:
        here.backups.early = True
        path = await backed_up(here, tmp_path)
        assert (path / "stream.arc.s2").read_bytes() == here.backups.archive


async def test_a_backup_of_one_piece_ends_without_a_status(tmp_path: Path) -> None:
    async with open_backups(new_archive(b"")) as here:
        here.backups.last = b""
        path = await backed_up(here, tmp_path)
        assert (path / "stream.arc.s2").read_bytes() == here.backups.archive


@pytest.mark.parametrize("there", ["file", "directory", "empty directory", "dangling link"])
async def test_what_is_there_is_refused_before_anything_is_sent(there: str, tmp_path: Path) -> None:
    path = tmp_path / "b"
    if there == "file":
        path.write_bytes(b"old")
    elif there == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.mkdir()
        if there == "directory":
            (path / "backup.json").write_bytes(b"old")
    async with open_backups() as here:
        before = len(here.server.frames)
        with pytest.raises(FileExistsError, match="exists") as caught:
            await here.stream.backup(path)
        assert caught.value.filename == str(path)
        with pytest.raises(FileNotFoundError):
            await here.stream.backup(tmp_path / "nowhere" / "b")
        assert len(here.server.frames) == before
    assert names_in(tmp_path) == ["b"]


async def test_what_came_to_be_there_meanwhile_stays(tmp_path: Path) -> None:
    async with open_backups() as here:

        def put(*_: object) -> None:
            (tmp_path / "b").mkdir(exist_ok=True)
            (tmp_path / "b" / "theirs").touch()

        with pytest.raises(OSError, match="not empty") as caught:
            await here.stream.backup(tmp_path / "b", put)
        assert caught.value.filename == str(tmp_path / "b")
    assert (names_in(tmp_path), names_in(tmp_path / "b")) == (["b"], ["theirs"])


async def test_arguments_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with open_backups() as here:
        before = len(here.server.frames)
        for path, kind, text in (
            (1, TypeError, r"backup of stream 'S': path must be text or an os\.PathLike, not int"),
            (b"b", TypeError, "not bytes"),
            ("", ValueError, "path '' is none"),
            ("a\0b", ValueError, "is none"),
        ):
            wrong: Any = path
            with pytest.raises(kind, match=text):
                await here.stream.backup(wrong)
            with pytest.raises(kind, match=text.replace("backup of stream 'S'", "restore_stream")):
                await here.js.restore_stream(wrong)
        for call in (here.stream.backup, here.js.restore_stream):
            given: Any = call
            with pytest.raises(TypeError, match="progress"):
                await given(tmp_path / "b", progress=1)
        with pytest.raises(TypeError, match=r"backup\(\) takes no timeout: with trio"):
            await here.stream.backup(tmp_path / "b", timeout=1)  # type: ignore[arg-type]
        assert len(here.server.frames) == before
    assert names_in(tmp_path) == []


def refuse_acknowledgements(here: Here) -> None:
    def refuse(frame: Frame) -> None:
        here.server.inject(f"-ERR 'Permissions Violation for Publish to \"{frame.subject}\"'\r\n".encode())

    here.backups.window = 1
    here.server.on("$JS.SNAPSHOT.ACK.>", refuse, first=True)


FAILURES: dict[str, tuple[Callable[[Here], object], type[Exception], str]] = {
    "a piece is lost": (lambda h: h.backups.lost.add(3), errors.BackupIncompleteError, r"piece 3 was lost"),
    "the last piece is lost": (
        lambda h: h.backups.lost.add(len(h.backups.pieces)),
        errors.BackupIncompleteError,
        "what came is no whole archive: it breaks off",
    ),
    "it breaks off as if it were whole": (
        lambda h: h.backups.pieces.__setitem__(slice(None), [STREAM + plain(b"NATSARC1 and not its mark")]),
        errors.BackupIncompleteError,
        "the mark at its end is missing",
    ),
    "it is none": (
        lambda h: h.backups.pieces.__setitem__(0, b"x" * 100),
        errors.BackupIncompleteError,
        "it does not begin as one",
    ),
    "the server gives up": (
        lambda h: setattr(h.backups, "last", b"NATS/1.0 408 No Flow Response\r\n\r\n"),
        errors.APIError,
        r"backup of stream 'S': No Flow Response \(code 408\)",
    ),
    "the server fails": (
        lambda h: setattr(h.backups, "last", b"NATS/1.0 500 disk on fire\r\n\r\n"),
        errors.ServerError,
        r"disk on fire \(code 500\)",
    ),
    "it is refused": (
        lambda h: h.server.on(
            "$JS.API.STREAM.SNAPSHOT.S", lambda _: refusal(500, 10064, "snapshot failed: no impl"), first=True
        ),
        errors.ServerError,
        r"backup of stream 'S': snapshot failed: no impl \(code 500, error 10064\)",
    ),
    "the response is none": (
        lambda h: h.server.on("$JS.API.STREAM.SNAPSHOT.S", lambda _: {"config": {}}, first=True),
        errors.APIError,
        "holds no configuration and no state",
    ),
    "its state is none": (
        lambda h: h.backups.state.update(messages="many"),
        errors.APIError,
        "messages must be a whole number",
    ),
    "an acknowledgement is refused": (
        refuse_acknowledgements,
        errors.PermissionsViolationError,
        "backup of stream 'S': .*SNAPSHOT.ACK",
    ),
}


@pytest.mark.parametrize(("prepare", "kind", "text"), FAILURES.values(), ids=FAILURES)
async def test_a_backup_that_fails_leaves_nothing_and_says_why(
    prepare: Callable[[Here], object], kind: type[Exception], text: str, tmp_path: Path
) -> None:
    async with open_backups() as here:
        prepare(here)
        with pytest.raises(kind, match=text):
            await here.stream.backup(tmp_path / "b")
        await here.nc.flush()
        assert not here.backups.heard
    assert names_in(tmp_path) == []


async def test_a_backup_whose_inbox_is_refused_says_so(tmp_path: Path) -> None:
    async with open_backups() as here:
        here.backups.silent = True
        here.server.deny_subscribe = ("_INBOX.>",)
        with pytest.raises(errors.PermissionsViolationError, match=r"backup of stream 'S': .*_INBOX"):
            await here.stream.backup(tmp_path / "b")
    assert names_in(tmp_path) == []


async def test_a_backup_ends_with_its_connection(tmp_path: Path) -> None:
    async with open_backups(reconnect_time_wait=0.001) as here:
        here.backups.silent = True
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(
                    errors.DisconnectedError, match="backup of stream 'S': the connection was lost"
                ) as caught:
                    await here.stream.backup(tmp_path / "b")
                assert caught.value.sent

            await until(lambda: here.server.sent("PUB", "$JS.API.STREAM.SNAPSHOT.S"))
            await settled()
            here.server.cut()
        await here.nc.wait_connected()
        assert not here.backups.heard
    assert names_in(tmp_path) == []


async def test_a_backup_ends_with_its_client(tmp_path: Path) -> None:
    async with open_backups() as here:
        here.backups.silent = True
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(errors.ConnectionClosedError, match="backup of stream 'S': the client was closed"):
                    await here.stream.backup(tmp_path / "b")

            await until(lambda: here.server.sent("PUB", "$JS.API.STREAM.SNAPSHOT.S"))
            await settled()
            await here.nc.aclose()
        with pytest.raises(errors.ConnectionClosedError):
            await here.stream.backup(tmp_path / "b")
    assert names_in(tmp_path) == []


async def test_a_backup_has_a_limit_for_standing_still_and_none_for_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "IDLE_LIMIT", 0.2)
    async with open_backups() as here:
        here.backups.silent = True
        with pytest.raises(errors.TimeoutError, match="backup of stream 'S'"):
            await here.stream.backup(tmp_path / "b")
        here.server.on("$JS.API.STREAM.SNAPSHOT.S", lambda _: None, first=True)
        with pytest.raises(errors.TimeoutError, match="backup of stream 'S'"):
            await here.stream.backup(tmp_path / "b")
    async with open_backups() as here:
        # Each piece takes its time, and all of them more than the limit.
        await here.stream.backup(tmp_path / "b", lambda *_: time.sleep(0.05))
    assert names_in(tmp_path) == ["b"]


async def test_a_cancelled_backup_leaves_nothing_and_the_server_stops(tmp_path: Path) -> None:
    async with open_backups(new_archive(b"m" * 300_000)) as here:
        here.backups.silent = True
        await cut_short(here.stream.backup, tmp_path / "b", after=0.1)
        await here.nc.flush()
        assert not here.backups.heard
        here.backups.silent = False
        scope = trio.CancelScope()
        with scope:
            await here.stream.backup(tmp_path / "b", lambda *_: scope.cancel())
        assert scope.cancelled_caught
        await here.nc.flush()
        assert not here.backups.heard
        assert here.backups.sent < len(here.backups.pieces)
    assert names_in(tmp_path) == []


async def test_a_progress_that_raises_ends_the_backup(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise LookupError("mine")

    async with open_backups() as here:
        with pytest.raises(LookupError, match="mine"):
            await here.stream.backup(tmp_path / "b", fail)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("call", ["mkdir", "open", "fsync", "rename"])
async def test_what_the_disk_refuses_is_named_by_the_path_that_was_given(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    async with open_backups() as here:
        monkeypatch.setattr(directories if call == "open" else os, call, fail, raising=False)
        with pytest.raises(OSError, match="no space left") as caught:
            await here.stream.backup(tmp_path / "b")
        monkeypatch.undo()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "b"))
    assert names_in(tmp_path) == []


async def test_a_slow_disk_slows_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits to be written is bounded: beyond that no piece is acknowledged before another one is written."""
    goes_on = threading.Event()
    monkeypatch.setattr(saving, "Incoming", partial(Incoming, held=250))

    class SlowFile(io.FileIO):
        def write(self, piece: Any) -> int:  # noqa: ANN401 - a buffer
            goes_on.wait(5)
            return super().write(piece)

    monkeypatch.setattr(directories, "open", lambda path, mode, **_: SlowFile(path, mode), raising=False)
    async with open_backups(new_archive(b"m" * 3000)) as here, trio.open_nursery() as nursery:
        nursery.start_soon(here.stream.backup, tmp_path / "b")
        await until(lambda: here.backups.sent >= 5)
        await here.nc.flush()
        # Two fit, and three more are under way.
        assert (here.backups.acknowledged, here.backups.sent) == (2, 5)
        goes_on.set()
    assert (tmp_path / "b" / "stream.arc.s2").read_bytes() == here.backups.archive


# -- restored ----------------------------------------------------------------------------------------------------------


async def test_a_backup_is_restored_in_the_words_it_was_made_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "PIECE", 70)
    told: Told = []
    async with open_backups() as here:
        path = await backed_up(here, tmp_path)
        stream = await here.js.restore_stream(path, progress=lambda *far: told.append(far))
        backups = here.backups
        assert (stream.name, stream.cached_info.state.last_seq, backups.restored) == ("S", 2, True)
        assert backups.asked == {"config": backups.config, "state": backups.state}
        assert (backups.taken, backups.called_off) == (backups.archive, False)
        size = len(backups.archive)
        assert (told[-1], {total for _, total in told}) == ((size, size), {size})
        with pytest.raises(errors.BadRequestError, match=r"restore of stream 'S': .*already in use.*10130"):
            await here.js.restore_stream(path)
    assert names_in(path) == ["backup.json", "stream.arc.s2"]


async def test_another_configuration_takes_the_place_of_the_one_it_had(tmp_path: Path) -> None:
    async with open_backups(old_archive()) as here:
        path = await backed_up(here, tmp_path)
        await here.js.restore_stream(path, num_replicas=3, placement=api.Placement(cluster="c"))
        config = {**here.backups.config, "num_replicas": 3, "placement": {"cluster": "c"}}
        assert here.backups.asked["config"] == config
        here.backups.restored = False
        await here.js.restore_stream(path, api.StreamConfig(subjects=["t.>"]), max_age=5)
        assert here.backups.asked["config"]["subjects"] == ["t.>"]
        assert here.backups.asked["config"]["name"] == "S"
        assert here.backups.asked["config"]["max_age"] == 5_000_000_000
        before = len(here.server.frames)
        with pytest.raises(ValueError, match=r"restore_stream: name is 'T': the backup is one of stream 'S'"):
            await here.js.restore_stream(path, name="T")
        with pytest.raises(TypeError, match=r"restore_stream\(\) has no option 'timeout': deadlines are cancel scopes"):
            await here.js.restore_stream(path, timeout=1)
        with pytest.raises(TypeError, match="num_replicas must be a whole number"):
            await here.js.restore_stream(path, num_replicas="3")
        manifest = json.loads((path / "backup.json").read_bytes())
        (path / "backup.json").write_text(json.dumps({**manifest, "config": {"name": "S", "subjects": 5}}))
        with pytest.raises(errors.BackupIncompleteError, match=r"^restore_stream: .*holds no configuration: subjects"):
            await here.js.restore_stream(path, num_replicas=3)
        assert len(here.server.frames) == before


@pytest.mark.parametrize(
    ("make", "config", "level", "text"),
    [
        (
            new_archive,
            {},
            4,
            r"the form of this backup needs a server of 2\.15 or later \(API level 5\); this one has level 4",
        ),
        (old_archive, {"allow_atomic": True}, 1, r"allow_atomic needs a server of 2\.12 or later"),
    ],
)
async def test_a_server_that_is_too_old_is_not_asked(
    make: Callable[[], bytes], config: dict[str, Any], level: int, text: str, tmp_path: Path
) -> None:
    async with open_backups(make()) as here:
        here.backups.config.update(config)
        path = await backed_up(here, tmp_path)
        here.backups.level = level
        with pytest.raises(errors.APIError, match=f"restore of stream 'S': {text}"):
            await here.js.restore_stream(path)
        assert not here.backups.asked


async def test_a_server_that_may_not_be_asked_is_told_the_level(tmp_path: Path) -> None:
    async with open_backups() as here:
        here.server.on(
            "$JS.API.INFO",
            lambda frame: here.server.inject(
                f"-ERR 'Permissions Violation for Publish to \"{frame.subject}\"'\r\n".encode()
            ),
            first=True,
        )
        await here.js.restore_stream(await backed_up(here, tmp_path))
        [asked] = here.server.sent("HPUB", "$JS.API.STREAM.RESTORE.S")
        assert b"Nats-Required-Api-Level: 5" in asked.headers


DAMAGES: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "no directory": (lambda path: path.rename(path.parent / "elsewhere"), FileNotFoundError, r"backup\.json"),
    "no backup.json": (lambda path: (path / "backup.json").unlink(), FileNotFoundError, r"backup\.json"),
    "no archive": (lambda path: (path / "stream.arc.s2").unlink(), FileNotFoundError, r"stream\.tar\.s2"),
    "two archives": (
        lambda path: (path / "stream.tar.s2").touch(),
        errors.BackupIncompleteError,
        r"holds both stream\.arc\.s2 and stream\.tar\.s2",
    ),
    "an archive that breaks off": (
        lambda path: (path / "stream.arc.s2").write_bytes((path / "stream.arc.s2").read_bytes()[:-1]),
        errors.BackupIncompleteError,
        "it breaks off",
    ),
    "an empty backup.json": (
        lambda path: (path / "backup.json").write_bytes(b""),
        errors.BackupIncompleteError,
        "holds no configuration",
    ),
}


@pytest.mark.parametrize(("damage", "kind", "text"), DAMAGES.values(), ids=DAMAGES)
async def test_a_damaged_backup_is_refused_before_anything_is_sent(
    damage: Callable[[Path], object], kind: type[Exception], text: str, tmp_path: Path
) -> None:
    async with open_backups() as here:
        path = await backed_up(here, tmp_path)
        damage(path)
        await here.nc.flush()
        before = len(here.server.frames)
        with pytest.raises(kind, match=text):
            await here.js.restore_stream(path)
        assert len(here.server.frames) == before


async def test_the_form_is_known_by_the_content_and_not_by_the_name(tmp_path: Path) -> None:
    """Tools before 0.5 call everything a tar file."""
    async with open_backups() as here:
        path = await backed_up(here, tmp_path)
        (path / "stream.arc.s2").rename(path / "stream.tar.s2")
        here.backups.level = 4
        with pytest.raises(errors.APIError, match=r"needs a server of 2\.15"):
            await here.js.restore_stream(path)


REFUSALS: dict[str, tuple[Any, type[Exception], str]] = {
    "a refusal": (
        refusal(500, 10062, "restore failed: bad archive"),
        errors.ServerError,
        "restore failed: bad archive",
    ),
    "the storage's": ("-ERR 'storage failure during restore'", errors.APIError, "no JSON object"),
    "something else": ({"success": True}, errors.APIError, "no refusal"),
}


@pytest.mark.parametrize(("answer", "kind", "text"), REFUSALS.values(), ids=REFUSALS)
async def test_a_restore_that_fails_is_called_off(
    answer: object, kind: type[Exception], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "PIECE", 70)
    async with open_backups() as here:
        path = await backed_up(here, tmp_path)
        here.backups.answers[4] = answer
        with pytest.raises(kind, match=f"restore of stream 'S': .*{text}"):
            await here.js.restore_stream(path)
        await here.nc.flush()
        assert (here.backups.called_off, here.backups.restored) == (True, False)


async def test_a_server_that_gave_up_says_nothing_and_the_error_says_why(tmp_path: Path) -> None:
    async with open_backups() as here:
        path = await backed_up(here, tmp_path)

        def nobody(frame: Frame) -> None:
            here.server.publish(frame.reply, headers=NO_RESPONDERS)

        here.server.on(here.backups.where, nobody, first=True)
        with pytest.raises(errors.NoRespondersError, match="gives up when nothing has come for 5 s"):
            await here.js.restore_stream(path)
        here.server.on("$JS.API.STREAM.RESTORE.S", nobody, first=True)
        with pytest.raises(errors.ServiceUnavailableError, match="nobody answers"):
            await here.js.restore_stream(path)


@pytest.mark.parametrize("where", [None, 1, "", "a b", "a.*"])
async def test_a_response_that_names_no_place_is_refused(where: object, tmp_path: Path) -> None:
    async with open_backups() as here:
        path = await backed_up(here, tmp_path)
        here.server.on("$JS.API.STREAM.RESTORE.S", lambda _: {"deliver_subject": where}, first=True)
        with pytest.raises(errors.APIError, match=r"restore of stream 'S': .*deliver_subject"):
            await here.js.restore_stream(path)


async def test_a_last_response_that_is_none_is_refused(tmp_path: Path) -> None:
    async with open_backups(new_archive(b"")) as here:
        path = await backed_up(here, tmp_path)
        for answer, text in (({"config": {}}, "no JetStream response"), (refusal(500, 10062, "no room"), "no room")):
            here.backups.answers[2] = answer
            with pytest.raises(errors.APIError, match=f"restore of stream 'S': .*{text}"):
                await here.js.restore_stream(path)


async def test_a_restore_has_a_limit_for_standing_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "IDLE_LIMIT", 0.1)
    monkeypatch.setattr(restoring, "LAST_LIMIT", 0.1)
    async with open_backups(new_archive(b"")) as here:
        path = await backed_up(here, tmp_path)
        for number in (1, 2):
            here.backups.answers = {number: None}
            with pytest.raises(errors.TimeoutError, match="restore of stream 'S'"):
                await here.js.restore_stream(path)
            await here.nc.flush()
            assert here.backups.called_off is (number == 1), "once the server has all of it, it is the server's affair"


async def test_a_restore_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "IDLE_LIMIT", 0.1)
    async with open_backups(old_archive(), pending_size=100) as here:
        path = await backed_up(here, tmp_path)
        await hold_back(here.server, here.nc, 200)
        with pytest.raises(errors.TimeoutError, match="restore"):
            await here.js.restore_stream(path)
        here.server.link.resume()
        await here.js.restore_stream(path)
        assert here.backups.restored


async def test_a_cancelled_restore_is_called_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "PIECE", 70)
    async with open_backups() as here:
        path = await backed_up(here, tmp_path)
        scope = trio.CancelScope()
        with scope:
            await here.js.restore_stream(path, progress=lambda *_: scope.cancel())
        await here.nc.flush()
        assert (scope.cancelled_caught, here.backups.called_off, here.backups.restored) == (True, True, False)


@pytest.mark.parametrize("late", ["where", "refused", "nonsense", "lost", "nothing"])
async def test_a_restore_that_is_cancelled_before_it_is_answered_is_called_off_by_the_answer(
    late: str, tmp_path: Path
) -> None:
    replies: list[str] = []
    async with open_backups() as here, trio.open_nursery() as nursery:
        path = await backed_up(here, tmp_path)
        here.server.on("$JS.API.STREAM.RESTORE.S", lambda frame: replies.append(frame.reply), first=True)
        scope = trio.CancelScope()

        @nursery.start_soon
        async def _() -> None:
            with scope:
                await here.js.restore_stream(path)

        await until(lambda: replies)
        await settled()
        scope.cancel()
        await settled()
        answers = {
            "where": {"deliver_subject": here.backups.where},
            "refused": refusal(400, 10130, "already in use"),
            "nonsense": {"deliver_subject": "a b"},
        }
        if late == "lost":
            here.server.cut()
        elif late != "nothing":
            here.server.publish(replies[0], json.dumps(answers[late]).encode())
    assert here.backups.called_off is (late == "where")


async def test_a_restore_that_is_cancelled_before_it_is_sent_is_not_sent(tmp_path: Path) -> None:
    async with open_backups(old_archive()) as here:
        path = await backed_up(here, tmp_path)
        await lose(here.server, here.nc)
        await cut_short(here.js.restore_stream, path, after=0.1)
        await regain(here.server, here.nc)
        assert not here.server.sent("PUB", "$JS.API.STREAM.RESTORE.S")


async def test_a_restore_that_is_cancelled_behind_its_last_request_is_the_server_s_affair(tmp_path: Path) -> None:
    async with open_backups() as here:
        path = await backed_up(here, tmp_path)
        whole = here.backups.archive
        here.backups.answers[2] = None
        here.backups.leave(state=here.backups.state)
        await cut_short(here.js.restore_stream, path, after=0.1)
        assert (here.backups.taken, here.backups.called_off, here.backups.deleted) == (whole, False, False)


@pytest.mark.parametrize("make", [new_archive, old_archive])
async def test_a_restore_is_called_off_in_the_way_of_its_form(
    make: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end before the end has a response, but an old server would restore what it has of an old archive."""
    monkeypatch.setattr(restoring, "PIECE", 70)
    async with open_backups(make(b"m" * 3000)) as here:
        path = await backed_up(here, tmp_path)
        scope = trio.CancelScope()
        with scope:
            await here.js.restore_stream(path, progress=lambda *_: scope.cancel())
        await here.nc.flush()
        last = here.server.sent("PUB", here.backups.where)[-1]
        assert (last.payload, bool(last.reply)) == (b"", make is new_archive)
        assert here.backups.called_off


LEFT: dict[str, tuple[dict[str, Any], bool]] = {
    "a part of it": ({"state": {"messages": 1, "last_seq": 1, "last_ts": "2026-11-29T11:00:00Z"}}, True),
    "an empty one": ({"state": {"messages": 0, "last_seq": 0}}, True),
    "a name that nobody leads": (refusal(404, 10059, "stream not found"), True),
    "somebody else's": ({"state": {"messages": 1, "last_seq": 1, "last_ts": "2026-11-29T13:00:00Z"}}, False),
}


@pytest.mark.parametrize("number", [1, 2])
async def test_a_stream_that_somebody_made_meanwhile_is_not_what_a_restore_left(number: int, tmp_path: Path) -> None:
    async with open_backups(new_archive(b"")) as here:
        path = await backed_up(here, tmp_path)
        here.backups.leave(state={"messages": 0, "last_seq": 0})
        here.backups.answers[number] = refusal(400, 10130, "stream name already in use, cannot restore")
        with pytest.raises(errors.BadRequestError, match="10130"):
            await here.js.restore_stream(path)
        await here.nc.flush()
        assert not here.backups.deleted


@pytest.mark.parametrize("how", ["cancelled", "refused", "refused in the end"])
@pytest.mark.parametrize(("left", "ours"), LEFT.values(), ids=LEFT)
async def test_what_is_left_of_a_restore_is_deleted_and_nothing_else(
    how: str, left: dict[str, Any], ours: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_backups(new_archive(b"")) as here:
        here.backups.state["last_ts"] = "2026-11-29T12:00:00Z"
        path = await backed_up(here, tmp_path)
        here.backups.leave(**left)
        scope = trio.CancelScope()
        with scope, suppress(errors.ServerError):
            if how == "cancelled":
                await here.js.restore_stream(path, progress=lambda *_: scope.cancel())
            here.backups.answers[1 if how == "refused" else 2] = refusal(500, 10062, "restore failed")
            await here.js.restore_stream(path)
        assert here.backups.deleted is ours
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said == ([] if ours else ["restore of stream 'S': it failed, and what has its name now is not what it left"])
