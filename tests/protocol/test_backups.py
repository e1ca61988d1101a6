"""What a backup consists of: its archive, its manifest, and a snapshot as it comes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archives import MARK, STREAM, ZEROS, compressed, framed, new_archive, old_archive, plain
from trionats import errors
from trionats._protocol.jetstream.backups import manifest
from trionats._protocol.jetstream.backups.archive import NEW, OLD, Archive, unpacked
from trionats._protocol.jetstream.backups.incoming import Incoming
from trionats._protocol.jetstream.backups.remains import is_left, leaves_nothing

# -- archives ----------------------------------------------------------------------------------------------------------


def looked_at(*pieces: bytes) -> Archive:
    archive = Archive()
    for piece in pieces:
        archive.feed(piece)
    archive.end()
    return archive


@settings(deadline=None)
@given(st.data(), st.booleans(), st.binary(max_size=3000))
def test_an_archive_is_known_by_its_beginning_and_whole_with_its_mark(data: Any, new: bool, content: bytes) -> None:  # noqa: ANN401
    make, expected = (new_archive, NEW) if new else (old_archive, OLD)
    whole = make(content, size=data.draw(st.integers(8, 1500)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    archive = looked_at(*(whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)))
    assert (archive.complaint, archive.form, archive.size) == ("", expected, len(whole))


@given(st.integers(0, 400))
def test_an_archive_that_breaks_off_anywhere_is_not_whole(at: int) -> None:
    whole = new_archive(b"x" * 300, size=50)
    assert (looked_at(whole[:at]).complaint == "") is (at >= len(whole))


DAMAGED = {
    "nothing": (b"", "it breaks off"),
    "no frames": (b"PK\x03\x04 and so on", "it does not begin as one"),
    "no block": (STREAM, "it breaks off"),
    "Snappy's": (framed(0xFF, b"sNaPpY"), "it is not compressed with S2"),
    "another beginning": (framed(0xFF, b"S2"), "it is not compressed with S2"),
    "an unknown kind": (STREAM + framed(2, b"x"), "it has a block of the unknown kind 2"),
    "an empty block": (STREAM + framed(1, b"sum."), "it has a block of 4 bytes"),
    "a block that is too large": (STREAM + b"\x00\xff\xff\xff", "it has a block of 16777215 bytes"),
    "a block without a size": (STREAM + compressed(b"\xff\xff"), "it has a block without a size"),
    "a block of a size that goes on": (STREAM + compressed(b"\xff" * 6), "it has a block without a size"),
    "a block that says it is too large": (
        STREAM + compressed(b"\xff\xff\xff\xff\x0f"),
        "it has a block without a size",
    ),
    "a block that cannot be unpacked": (STREAM + compressed(b"\x05\x01\x09"), "its last block cannot be unpacked"),
    "the mark is missing": (STREAM + plain(b"NATSARC1 and then"), "the mark at its end is missing"),
    "too few zeros": (STREAM + plain(b"x" + bytes(1023)), "the mark at its end is missing"),
    "a mark alone": (STREAM + plain(bytes(100)), "the mark at its end is missing"),
}


@pytest.mark.parametrize(("content", "complaint"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_whole_archive_is_told(content: bytes, complaint: str) -> None:
    assert looked_at(content, b"").complaint == complaint


def test_nothing_more_is_looked_at_behind_what_is_wrong() -> None:
    archive = looked_at(b"nonsense", new_archive())
    assert archive.complaint == "it does not begin as one"


def test_frames_that_may_be_left_out_are_and_a_stream_may_begin_again() -> None:
    parts = [STREAM, framed(0x99, b"index"), plain(b"NATSARC1"), framed(0xFE, b""), STREAM, plain(MARK)]
    assert looked_at(*parts).complaint == ""


def test_a_mark_is_found_over_several_blocks_also_where_one_is_much_smaller() -> None:
    tail = [plain(ZEROS[:600]), plain(ZEROS[:400]), plain(ZEROS[:24])]
    assert looked_at(STREAM, plain(b"file"), *tail).complaint == ""
    assert looked_at(STREAM, plain(b"file"), *tail[:2], plain(ZEROS[:23])).complaint != ""


def test_blocks_that_hold_nothing_are_as_if_they_were_not_there() -> None:
    empty = compressed(b"\x00")
    assert looked_at(STREAM, empty, plain(b"NATSARC1"), empty, plain(MARK), empty).complaint == ""
    assert looked_at(STREAM, empty).complaint == "it breaks off"


def test_a_compressed_mark_is_found() -> None:
    # One literal of five bytes; and one zero, repeated 1,023 times by copies of 64.
    copies = b"".join(bytes([(length - 1) << 2 | 2, 1, 0]) for length in [64] * 15 + [63])
    assert looked_at(STREAM, plain(b"NATSARC1"), compressed(b"\x05\x10" + MARK)).complaint == ""
    assert looked_at(STREAM, compressed(b"\x80\x08\x00\x00" + copies)).complaint == ""


# What is packed, as S2 has it: literals, and copies of three kinds.


@dataclass
class Packed:
    """A block that grows."""

    content: bytearray
    packed: bytearray
    offset: int = 0

    def literal(self, data: bytes, width: int) -> None:
        if width:
            self.packed += bytes([(59 + width) << 2]) + (len(data) - 1).to_bytes(width, "little") + data
        else:
            self.packed += bytes([(len(data) - 1) << 2]) + data
        self.content += data

    def copy(self, kind: int, length: int, offset: int) -> None:
        if kind == 1:
            self.packed += bytes([offset >> 8 << 5 | (length - 4) << 2 | 1, offset & 255])
        else:
            self.packed += bytes([(length - 1) << 2 | kind]) + offset.to_bytes(2 if kind == 2 else 4, "little")
        self.offset = offset
        self._repeat(length)

    def again(self, length: int, width: int) -> None:
        base = (0, 4, 1 << 8, 1 << 16)[width] + 4
        short = width + 4 if width else length - 4
        more = (length - base).to_bytes(width, "little") if width else b""
        self.packed += bytes([short << 2 | 1, 0]) + more
        self._repeat(length)

    def _repeat(self, length: int) -> None:
        for _ in range(length):
            self.content.append(self.content[-self.offset])

    @property
    def block(self) -> bytes:
        size, head = len(self.content), bytearray()
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        return bytes([0, *head, size]) + bytes(self.packed)


@st.composite
def blocks(draw: st.DrawFn) -> Packed:
    made = Packed(bytearray(), bytearray())
    made.literal(draw(st.binary(min_size=1, max_size=60)), 0)
    for _ in range(draw(st.integers(0, 12))):
        far = len(made.content)
        match draw(st.sampled_from(["short", "long", "copy 1", "copy 2", "copy 3", "again"])):
            case "short":
                made.literal(draw(st.binary(min_size=1, max_size=60)), 0)
            case "long":
                made.literal(draw(st.binary(min_size=1, max_size=200)), draw(st.integers(1, 4)))
            case "copy 1":
                made.copy(1, draw(st.integers(4, 11)), draw(st.integers(1, min(far, 2047))))
            case "copy 2":
                made.copy(2, draw(st.integers(1, 64)), draw(st.integers(1, min(far, 65535))))
            case "copy 3":
                made.copy(3, draw(st.integers(1, 64)), draw(st.integers(1, far)))
            case "again" if made.offset:
                width = draw(st.integers(0, 3))
                least = (4, 8, 260, 65540)[width]
                made.again(draw(st.integers(least, least + (4 if not width else 250))), width)
    return made


@settings(deadline=None)
@given(blocks())
def test_a_block_is_unpacked_as_it_was_packed(made: Packed) -> None:
    assert unpacked(made.block) == bytes(made.content)
    begins = unpacked(made.block, 8)
    assert begins is not None
    assert begins[:8] == bytes(made.content[:8])


@settings(deadline=None)
@given(blocks(), st.data())
def test_a_damaged_block_is_refused_or_something_else_and_nothing_worse(made: Packed, data: Any) -> None:  # noqa: ANN401
    block = bytearray(made.block)
    at = data.draw(st.integers(1, len(block) - 1))
    assert unpacked(bytes(block[:at])) is None
    block[at] = data.draw(st.integers(0, 255))
    result = unpacked(bytes(block))
    assert result is None or isinstance(result, bytes)


@pytest.mark.parametrize(
    "block",
    [
        b"\x00",  # no size
        b"\x00\x05\x08ab",  # a literal that breaks off
        b"\x00\x09\xf0",  # one whose length is missing
        b"\x00\x09\xf4\x01",  # and one whose length breaks off
        b"\x00\x09\x00a\x02\x01",  # a copy that does
        b"\x00\x09\x00a\x03\x01\x00\x00",
        b"\x00\x09\x00a\x19",  # one without an offset
        b"\x00\x09\x00a\x19\x00",  # as far back as the copy before, of which there is none
        b"\x00\x09\x00a\x15\x00",  # and whose length is missing
        b"\x00\x09\x00a\x02\x05\x00",  # from before the beginning
        b"\x00\x01\x00a\x00b",  # more than it says
    ],
)
def test_a_damaged_block_is_refused(block: bytes) -> None:
    assert unpacked(block) is None


# -- backup.json -------------------------------------------------------------------------------------------------------

SAID: dict[str, Any] = {"config": {"name": "S", "max_age": 10**18, "new": {"field": None}}, "state": {"last_seq": 3}}


def test_what_the_server_said_is_written_and_read_in_its_words() -> None:
    said = manifest.of_response({"type": "response", **SAID})
    assert said is not None
    content = manifest.written(said)
    assert json.loads(content) == SAID
    read = manifest.read("restore", content)
    assert (read, read.stream) == (said, "S")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"config": {"name": "S"}}',
        b'{"config": [], "state": {}}',
        b'{"config": {}, "state": {}}',
        b'{"config": {"name": 1}, "state": {}}',
        b'{"config": {"name": "a.b"}, "state": {}}',
        b'{"config": {"name": "S", "max_age": NaN}, "state": {}}',
        b'{"config": {"name": "S", "max_age": 1e999}, "state": {}}',
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(errors.BackupIncompleteError, match=r"^restore: its backup\.json "):
        manifest.read("restore", content)


def test_its_configuration_is_read_to_be_changed() -> None:
    config = manifest.configuration("restore", manifest.Manifest(SAID["config"], {}))
    assert (config.name, config.max_age) == ("S", 1e9)


@pytest.mark.parametrize(
    "field",
    [
        {"max_msgs": "5"},
        {"subjects": 5},
        {"mirror": "O"},
        {"mirror": {}},
        {"max_age": 10**400},
        {"max_age": "1h"},
        {"sources": [5]},
    ],
)
def test_a_configuration_that_is_none_cannot_be_changed(field: dict[str, Any]) -> None:
    with pytest.raises(errors.BackupIncompleteError, match=r"^restore: its backup\.json holds no configuration: ."):
        manifest.configuration("restore", manifest.Manifest({"name": "S", **field}, {}))


# -- a snapshot as it comes --------------------------------------------------------------------------------------------


def ack(size: int, number: int) -> str:
    return f"$JS.SNAPSHOT.ACK.S.id.{size}.{number}"


def test_pieces_are_kept_in_their_order_and_acknowledged() -> None:
    incoming = Incoming()
    incoming.take(b"ab", ack(2, 1), None, "")
    incoming.take(b"c", ack(1, 2), None, "")
    assert incoming.due() == [ack(2, 1), ack(1, 2)]
    assert incoming.due() == []
    assert incoming.pieces() == [b"ab", b"c"]
    assert incoming.pieces() == []
    incoming.take(b"d", "", None, "")
    assert (incoming.due(), incoming.pieces(), incoming.over) == ([], [b"d"], False)
    incoming.take(b"", "", 204, "")
    incoming.take(b"late", ack(4, 4), None, "")
    assert (incoming.over, incoming.complaint, incoming.refusal, incoming.pieces()) == (True, "", None, [])


def test_a_small_snapshot_ends_without_a_status() -> None:
    incoming = Incoming()
    incoming.take(b"a", "", None, "")
    incoming.take(b"", "", None, "")
    assert (incoming.over, incoming.refusal) == (True, None)


def test_acknowledgements_wait_while_too_much_waits_to_be_written() -> None:
    incoming = Incoming(held=3)
    incoming.take(b"ab", ack(2, 1), None, "")
    incoming.take(b"c", ack(1, 2), None, "")
    assert len(incoming.due()) == 2
    incoming.take(b"d", ack(1, 3), None, "")
    incoming.take(b"e", ack(1, 4), None, "")
    assert incoming.due() == []
    incoming.written(1)
    assert incoming.due() == []
    incoming.written(1)
    assert incoming.due() == [ack(1, 3), ack(1, 4)]


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (ack(1, 3), "piece 2 was lost"),
        (ack(1, 1), "piece 2 was lost"),
        (ack(2, 2), "piece 2 was lost"),
        ("anything", "piece 2 was lost"),
        ("a.b", "piece 2 was lost"),
    ],
)
def test_a_gap_is_seen(reply: str, complaint: str) -> None:
    incoming = Incoming()
    incoming.take(b"a", ack(1, 1), None, "")
    incoming.take(b"b", reply, None, "")
    assert (incoming.over, incoming.complaint) == (True, complaint)


def test_nothing_comes_behind_the_last_piece() -> None:
    incoming = Incoming()
    incoming.take(b"a", "", None, "")
    incoming.take(b"b", "", None, "")
    assert incoming.complaint == "something came behind its last piece"


def test_the_server_s_last_word_is_kept() -> None:
    incoming = Incoming()
    incoming.take(b"", "", 408, "No Flow Response")
    assert (incoming.over, incoming.refusal) == (True, (408, "No Flow Response"))


# -- what is left of a restore -----------------------------------------------------------------------------------------

BACKUP = {"messages": 9, "first_seq": 3, "last_seq": 20, "last_ts": "2026-11-29T12:00:00.5Z"}
OLDER, YOUNGER = "2026-11-29T12:00:00.123456789Z", "2026-11-29T12:00:01Z"
NOT_FOUND = errors.explained(errors.NotFoundError, "stream not found", code=404, err_code=10059)
UNAVAILABLE = errors.explained(errors.ServiceUnavailableError, "no leader", code=503, err_code=10008)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (NOT_FOUND, True),
        (UNAVAILABLE, False),
        ({"state": {"messages": 0, "last_seq": 0}}, True),
        ({"state": {"messages": 0, "last_seq": 20}}, True),
        ({"state": {"messages": 0, "last_seq": 21}}, False),
        ({"state": {"messages": 0}}, False),
        ({"state": {"messages": 5, "last_seq": 7, "last_ts": OLDER}}, True),
        ({"state": {"messages": 9, "last_seq": 20, "last_ts": BACKUP["last_ts"]}}, True),
        ({"state": {"messages": 1, "last_seq": 1, "last_ts": YOUNGER}}, False),
        ({"state": {"messages": 1, "last_seq": 1, "last_ts": "soon"}}, False),
        ({"state": {"messages": 1}}, False),
        ({"state": None}, False),
        ({}, False),
    ],
)
def test_only_what_a_restore_left_is_deleted(said: Any, expected: bool) -> None:  # noqa: ANN401
    assert is_left(said, BACKUP) is expected


def test_a_name_that_somebody_else_took_first_leaves_nothing() -> None:
    taken = errors.explained(errors.BadRequestError, "already in use", code=400, err_code=10130)
    assert leaves_nothing(taken)
    for reason in (NOT_FOUND, KeyboardInterrupt(), errors.DisconnectedError()):
        assert not leaves_nothing(reason)


def test_nothing_is_deleted_where_the_backup_says_nothing_of_its_end() -> None:
    for state in ({"messages": 0, "last_seq": 0}, {"messages": 1, "last_ts": OLDER}):
        assert not is_left({"state": state}, {})
