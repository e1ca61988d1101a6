"""The archive of a backup: whose form it is, and whether all of it is there.

What a server gives is an archive of its own (`NATSARC1`, from 2.15 on) or a tar file, compressed with S2 in blocks of which each can be
read alone. Nothing but the server unpacks it. But a transfer that broke off in a quiet moment looks like one that is over, and servers
of 2.12 to 2.14 end one whose reading failed as if nothing were wrong. So the frames of the blocks are walked as they pass, and in the
end the last blocks alone are unpacked: both forms end with a mark, the tar file with 1,024 zeros, the other one with an entry without
name and size, five zeros. The checksums of the blocks are the server's affair when it restores: to compute them here would take longer
than everything else.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple, final

__all__ = ["NEW", "OLD", "Archive", "Form", "unpacked"]


class Form(NamedTuple):
    """One of the two forms."""

    file: str
    """The name of the file, as the `nats` tool gives it."""
    level: int
    """The API level of the servers that restore it."""
    end: bytes
    """The mark at its end."""


#: What servers from 2.15 on give.
NEW: Final = Form("stream.arc.s2", 5, bytes(5))
#: What servers before 2.15 give, and all restore.
OLD: Final = Form("stream.tar.s2", 0, bytes(1024))

_NEW_BEGINS: Final = b"NATSARC1"
_HEAD: Final = 4
_COMPRESSED, _PLAIN, _FIRST_SKIPPABLE, _STREAM = 0x00, 0x01, 0x80, 0xFF
_STREAM_BODY: Final = b"S2sTwO"
_CHECKSUM: Final = 4
#: A block holds at most this much (4 MiB), and the server writes 1 MiB: what claims more is no block.
_LARGEST: Final = 4 * 1024 * 1024


@final
class Archive:
    """An archive that passes by, piece by piece."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._body = bytearray()
        self._kind = _STREAM
        self._missing = 0
        self._began = False
        # The last blocks, with their sizes when unpacked: as many as hold the mark.
        self._last: deque[tuple[bytes, int]] = deque()
        self._kept = 0  # the sum of their sizes
        self.form = OLD
        """Known after the first block."""
        self.complaint = ""
        """What is wrong with what has passed; empty for nothing."""
        self.size = 0
        """How many bytes have passed."""

    def feed(self, piece: bytes) -> None:
        """Look at the next piece."""
        self.size += len(piece)
        rest = memoryview(piece)
        while rest and not self.complaint:
            if self._missing:
                taken = rest[: self._missing]
                if self._kind in (_COMPRESSED, _PLAIN, _STREAM):
                    self._body += taken
                self._missing -= len(taken)
                rest = rest[len(taken) :]
            else:
                needed = _HEAD - len(self._head)
                self._head += rest[:needed]
                rest = rest[needed:]
                if len(self._head) < _HEAD:
                    return
                self._begin_block()
            if not self._missing and not self.complaint:
                self._end_block()

    def end(self) -> None:
        """Take note that nothing more comes: the complaint is then the last word."""
        if self.complaint:
            return
        if self._missing or self._head or not self._last:
            self.complaint = "it breaks off"
            return
        tail = b""
        while self._last and len(tail) < len(self.form.end):
            block = unpacked(self._last.pop()[0])
            if block is None:
                self.complaint = "its last block cannot be unpacked"
                return
            tail = block + tail
        if not tail.endswith(self.form.end):
            self.complaint = "the mark at its end is missing"

    def _begin_block(self) -> None:
        self._kind = self._head[0]
        self._missing = int.from_bytes(self._head[1:], "little")
        self._head.clear()
        self._body.clear()
        if not self._began and self._kind != _STREAM:
            self.complaint = "it does not begin as one"
        elif self._kind == _STREAM and self._missing != len(_STREAM_BODY):
            self.complaint = "it is not compressed with S2"
        elif _PLAIN < self._kind < _FIRST_SKIPPABLE:
            self.complaint = f"it has a block of the unknown kind {self._kind}"
        elif self._kind in (_COMPRESSED, _PLAIN) and not _CHECKSUM < self._missing <= _LARGEST + _CHECKSUM:
            self.complaint = f"it has a block of {self._missing} bytes"

    def _end_block(self) -> None:
        if self._kind == _STREAM:
            if self._body != _STREAM_BODY:
                self.complaint = "it is not compressed with S2"
            self._began = True
        elif self._kind in (_COMPRESSED, _PLAIN):
            self._take(bytes([self._kind]) + self._body[_CHECKSUM:])

    def _take(self, block: bytes) -> None:
        size = _size_of(block)
        if size is None:
            self.complaint = "it has a block without a size"
            return
        if not size:
            return
        if not self._last:
            begins = unpacked(block, len(_NEW_BEGINS))
            self.form = NEW if begins is not None and begins.startswith(_NEW_BEGINS) else OLD
        self._last.append((block, size))
        self._kept += size
        while self._kept - self._last[0][1] >= len(self.form.end):
            self._kept -= self._last.popleft()[1]


def _size_of(block: bytes) -> int | None:
    """Say how much a block is when unpacked."""
    if block[0] == _PLAIN:
        return len(block) - 1
    found = _varint(block, 1)
    return found[0] if found is not None and found[0] <= _LARGEST else None


def _varint(block: bytes, at: int) -> tuple[int, int] | None:
    """Read a number of 7 bits a byte; gives it and where it ends."""
    value = shift = 0
    for index in range(at, min(at + 5, len(block))):
        value |= (block[index] & 0x7F) << shift
        if block[index] < 0x80:
            return value, index + 1
        shift += 7
    return None


def unpacked(block: bytes, most: int | None = None) -> bytes | None:
    """Unpack one block of S2: literals, and copies of what came before.

    Args:
        block: Its kind, and what stands behind its checksum.
        most: Enough, in bytes; None for all of it.

    Returns:
        What it holds; None where it is damaged.
    """
    if block[0] == _PLAIN:
        return block[1:]
    size, at = _varint(block, 1) or (-1, 0)
    out = bytearray()
    offset = 0
    wanted = size if most is None else min(most, size)
    try:
        while len(out) < wanted:
            tag = block[at]
            at += 1
            if not tag & 3:
                length, at = _literal(block, tag, at)
                if at + length > len(block):
                    return None
                out += block[at : at + length]
                at += length
                continue
            length, offset, at = _copy(block, tag, at, offset)
            if not 0 < offset <= len(out):
                return None
            start = len(out) - offset
            # A copy may reach into what it makes itself: then that repeats.
            pattern = out[start : start + length]
            out += (pattern * (length // len(pattern) + 1))[:length]
    except IndexError:
        return None
    whole = len(out) == size and at == len(block)
    return bytes(out) if most is not None or whole else None


def _literal(block: bytes, tag: int, at: int) -> tuple[int, int]:
    """Give the length of a literal, and where it stands."""
    short = tag >> 2
    if short < 60:
        return short + 1, at
    count = short - 59
    block[at + count - 1]  # or it ends before
    return int.from_bytes(block[at : at + count], "little") + 1, at + count


def _copy(block: bytes, tag: int, at: int, offset: int) -> tuple[int, int, int]:
    """Give the length and the offset of a copy, and where what follows it stands."""
    if tag & 3 != 1:
        width = 2 if tag & 3 == 2 else 4
        block[at + width - 1]
        return (tag >> 2) + 1, int.from_bytes(block[at : at + width], "little"), at + width
    length, new = tag >> 2 & 7, (tag & 0xE0) << 3 | block[at]
    at += 1
    if new:
        return length + 4, new, at
    # S2's own: as far back as the copy before.
    if length < 5:
        return length + 4, offset, at
    width = length - 4
    block[at + width - 1]
    base = (4, 1 << 8, 1 << 16)[width - 1]
    return int.from_bytes(block[at : at + width], "little") + base + 4, offset, at + width
