"""What a server leaves of a restore that came to nothing.

Servers before 2.15, alone, leave nothing. One of 2.15 leaves what it had: a stream like any other, with the first part of the messages.
In a cluster the name stays taken although nobody leads a stream of it, and some seconds later there may even be one, empty. None of it
ends by itself, so it is deleted; and nothing else is. The name was free when the restore began. So what has it now is the restore's,
unless somebody else made a stream meanwhile, or has found this one and stored something in it: then it holds what is younger than the
backup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trionats import errors
from trionats._protocol.jetstream.refusals import is_missing
from trionats._told.moments import read_moment

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_left", "leaves_nothing"]

_NAME_TAKEN: Final = 10130


def leaves_nothing(reason: BaseException) -> bool:
    """Say whether a restore that failed for this has left nothing: somebody else had the name first, be it since it began."""
    return isinstance(reason, errors.APIError) and reason.err_code == _NAME_TAKEN


def is_left(said: Mapping[str, object] | errors.APIError, backup: Mapping[str, object]) -> bool:
    """Say whether what has the name is what a restore left.

    Args:
        said: What is said of the stream whose name is taken: its info, or why there is none.
        backup: The state of the stream that was to come back.
    """
    if isinstance(said, errors.APIError):
        return is_missing(said)
    state = said.get("state")
    if not isinstance(state, dict):
        return False
    if state.get("messages") == 0:
        last, end = state.get("last_seq"), backup.get("last_seq")
        return isinstance(last, int) and isinstance(end, int) and last <= end
    try:
        return read_moment(state.get("last_ts")) <= read_moment(backup.get("last_ts"))
    except ValueError:
        return False
