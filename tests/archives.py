"""Archives of backups, as a server gives them, with what stands in them chosen by a test."""

from __future__ import annotations

STREAM = b"\xff\x06\x00\x00S2sTwO"
#: How the two forms end.
MARK, ZEROS = bytes(5), bytes(1024)


def framed(kind: int, body: bytes) -> bytes:
    """One frame."""
    return bytes([kind]) + len(body).to_bytes(3, "little") + body


def plain(content: bytes) -> bytes:
    """A block that is not compressed; nobody here looks at its checksum."""
    return framed(1, b"sum." + content)


def compressed(block: bytes) -> bytes:
    """A block that is."""
    return framed(0, b"sum." + block)


def new_archive(content: bytes = b"messages", *, size: int = 1024) -> bytes:
    """An archive of server 2.15, in blocks of a size."""
    return _archive(b"NATSARC1" + content + MARK, size)


def old_archive(content: bytes = b"messages", *, size: int = 1024) -> bytes:
    """An archive of an older server."""
    return _archive(b"meta.inf" + content + ZEROS, size)


def _archive(content: bytes, size: int) -> bytes:
    return STREAM + b"".join(plain(content[at : at + size]) for at in range(0, len(content), size))
