"""What a message of a key-value bucket says of its key (ADR-8, ADR-48)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MARKER_REASON", "OPERATION", "Operation", "operation_of"]

Operation = Literal["DEL", "PURGE"]

OPERATION: Final = "KV-Operation"
MARKER_REASON: Final = "Nats-Marker-Reason"
#: Why the server itself marked a key as gone, in the words that clients use.
_MARKED: Final[dict[str, Operation]] = {"MaxAge": "PURGE", "Purge": "PURGE", "Remove": "DEL"}


def operation_of(headers: Mapping[str, str]) -> Operation | None:
    """Say what a message did to its key.

    Any operation and any reason that is not known means that the key is gone, as ADR-8 has it.

    Args:
        headers: The message's headers.

    Returns:
        "DEL" or "PURGE" where it is a marker, None where it is a value.
    """
    operation = headers.get(OPERATION)
    if operation is not None:
        return "PURGE" if operation == "PURGE" else "DEL"
    reason = headers.get(MARKER_REASON)
    return None if reason is None else _MARKED.get(reason, "DEL")
