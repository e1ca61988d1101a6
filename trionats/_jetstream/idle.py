"""What may take as long as it likes, as long as something moves."""

from __future__ import annotations

from typing import Final

from trionats import errors

__all__ = ["IDLE_LIMIT", "idle_error"]

#: A transfer or a list fails when nothing has moved for so many seconds, however long it takes in all.
IDLE_LIMIT: Final = 30.0


def idle_error(doing: str, refusal: Exception | None = None) -> Exception:
    """Make the exception for what does not move.

    Args:
        doing: The transfer, or the list.
        refusal: What the server says instead of responding, where it says anything.
    """
    if refusal is not None:
        text = f"{doing}: nothing came for {IDLE_LIMIT:g} s: {refusal}"
        return errors.explained(type(refusal), text, **vars(refusal))
    return errors.explained(errors.TimeoutError, f"{doing}: the server has not answered for {IDLE_LIMIT:g} s")
