"""An archive as it comes: pieces in their order, which are acknowledged, and the server's last word.

The server sends as much as 8 MiB ahead of the acknowledgements, and gives up when none comes for 5 s (before 2.12: 2 s). A disk may
stand still for longer. So a piece is acknowledged as it comes for as long as little waits to be written, and behind that only when
as much has been written: what is held is bounded, and a slow disk slows the server instead of the other way round.
"""

from __future__ import annotations

from collections import deque
from typing import Final, final

__all__ = ["HELD", "Incoming"]

#: How many bytes may wait to be written before acknowledgements wait, too; what the server may send ahead comes on top.
HELD: Final = 16 * 1024 * 1024
_DONE: Final = 204


@final
class Incoming:
    """The pieces of one archive. Told what comes to the inbox, it never raises."""

    def __init__(self, held: int = HELD) -> None:
        self._most = held
        self._pieces: list[bytes] = []
        self._owed: deque[str] = deque()
        self._count = self._held = 0
        self._last_came = False
        self.over = False
        """Whether nothing more is to come."""
        self.complaint = ""
        """What is wrong with what came: it is no whole archive then. Empty for nothing."""
        self.refusal: tuple[int, str] | None = None
        """Why the server gave up, where it says so: its status and its words."""

    def take(self, data: bytes, reply: str, status: int | None, description: str) -> None:
        """Take a message.

        Args:
            data: Its payload: a piece, or nothing for the end.
            reply: Where it is acknowledged, which says how large it is and which one. The last piece has none.
            status: The server's status, None for none.
            description: The server's words.
        """
        if self.over:
            return
        if not data:
            self._end(status, description)
        elif self._last_came:
            self._complain("something came behind its last piece")
        elif not reply:
            self._last_came = True
            self._keep(data)
        elif _told(reply) != (len(data), self._count + 1):
            self._complain(f"piece {self._count + 1} was lost")
        else:
            self._owed.append(reply)
            self._keep(data)

    def pieces(self) -> list[bytes]:
        """Take what there is to write."""
        taken, self._pieces = self._pieces, []
        return taken

    def written(self, size: int) -> None:
        """Take note of what was written, in bytes."""
        self._held -= size

    def due(self) -> list[str]:
        """Take what is to be acknowledged now."""
        if self._held > self._most:
            return []
        due = list(self._owed)
        self._owed.clear()
        return due

    def _keep(self, data: bytes) -> None:
        self._count += 1
        self._held += len(data)
        self._pieces.append(data)

    def _end(self, status: int | None, description: str) -> None:
        self.over = True
        if status not in (None, _DONE):
            self.refusal = (status, description)

    def _complain(self, complaint: str) -> None:
        self.over = True
        self.complaint = complaint


def _told(reply: str) -> tuple[int, int] | None:
    """Read the size and the number of a piece from where it is acknowledged."""
    *_, size, number = ["", "", *reply.split(".")]
    try:
        return int(size), int(number)
    except ValueError:
        return None
