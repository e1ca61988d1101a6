"""An object cut into chunks: where they end depends on its bytes alone, not on the pieces in which these came.

What comes in one piece is handed on as views of it. Only a chunk that several pieces share is put together, and what is
left over at the end of a piece is copied, so that it does not keep all of it in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trionats._protocol.commands import Payload

__all__ = ["Cutter"]


class Cutter:
    """Cuts what comes, in order, into chunks of one size; only the last one may be smaller.

    Nobody changes what was given to it or came from it, a `bytearray` neither.

    Args:
        size: How large they are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rest = bytearray()
        self._ended = False

    def cut(self, piece: Payload) -> list[Payload]:
        """Take the next piece; give the chunks that are complete with it."""
        chunks: list[Payload] = []
        view = memoryview(piece)
        if self._rest:
            missing = self.size - len(self._rest)
            self._rest += view[:missing]
            view = view[missing:]
            if len(self._rest) < self.size:
                return chunks
            chunks.append(self._rest)
            self._rest = bytearray()
        whole = len(view) - len(view) % self.size
        chunks += [view[start : start + self.size] for start in range(0, whole, self.size)]
        self._rest += view[whole:]
        return chunks

    def end(self) -> list[Payload]:
        """Take note that there is no more; give the last chunk, if something is left for one."""
        self._ended = True
        rest, self._rest = self._rest, bytearray()
        return [rest] if rest else []

    def again(self, chunks: Iterable[Payload], size: int) -> list[Payload]:
        """Cut anew, into chunks of another size, what was handed on last and is not wanted that way.

        Args:
            chunks: The last chunks that were handed on, in order.
            size: How large they are from now on.

        Returns:
            The chunks in their place.
        """
        rest, self._rest, self.size = self._rest, bytearray(), size
        anew = [new for old in (*chunks, rest) for new in self.cut(old)]
        return anew + self.end() if self._ended else anew
