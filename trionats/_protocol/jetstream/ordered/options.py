"""What an ordered consumer may be asked for: checked before anything is sent, and put into the server's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trionats import api
from trionats._protocol import fields, subjects
from trionats._protocol.jetstream.actions import Start
from trionats._told.moments import written_moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = ["filters_of", "more_of", "prefix_of", "start_of", "threshold_of"]

_CALL: Final = "ordered_consumer"
_POLICIES: Final = tuple(policy.value for policy in api.DeliverPolicy)
_REPLAYS: Final = tuple(policy.value for policy in api.ReplayPolicy)


def filters_of(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Check what is to be read.

    Args:
        given: `filter_subjects` as it was given.

    Returns:
        The filters; none for all that the stream holds.

    Raises:
        TypeError: It is neither text nor a list of texts.
        ValueError: One of them is no subject, or there is none in the list.
    """
    fields.check_argument(_CALL, "filter_subjects", str | list[str] | None, given)
    if given is None:
        return ()
    filters = (given,) if isinstance(given, str) else tuple(given)
    if not filters:
        raise ValueError(f"{_CALL}: filter_subjects is empty; leave it out to read all")
    for one in filters:
        subjects.pattern(f"{_CALL}: filter_subjects", one)
    return filters


def start_of(policy: str, sequence: int | None, when: datetime | None) -> Start:
    """Check where reading is to begin.

    Args:
        policy: `deliver_policy` as it was given.
        sequence: `opt_start_seq`.
        when: `opt_start_time`.

    Raises:
        TypeError: One of them is of another kind.
        ValueError: There is no such policy, the time has no zone, or a policy lacks what it needs or has what it does not.
    """
    fields.check_argument(_CALL, "deliver_policy", api.DeliverPolicy, policy)
    fields.check_argument(_CALL, "opt_start_seq", int | None, sequence)
    name = _one_of("deliver_policy", policy, _POLICIES)
    given = {"by_start_sequence": ("opt_start_seq", sequence), "by_start_time": ("opt_start_time", when)}
    for needs, (option, value) in given.items():
        if (name == needs) != (value is not None):
            verb = "needs" if name == needs else "does not go with"
            raise ValueError(f"{_CALL}: deliver_policy {name!r} {verb} {option}")
    if sequence is not None and sequence < 1:
        raise ValueError(f"{_CALL}: opt_start_seq must be 1 or more, not {sequence}")
    if when is None:
        return Start(name, sequence or 0)
    return Start(name, time=written_moment(_CALL, "opt_start_time", when))


def threshold_of(seconds: float) -> float:
    """Check for how long the server is to keep a consumer that nobody asks.

    Args:
        seconds: `inactive_threshold`.

    Raises:
        TypeError: It is no number.
        ValueError: It is too large, or not above 0: the server would take a default.
    """
    fields.check_argument(_CALL, "inactive_threshold", float, seconds)
    if seconds <= 0:
        raise ValueError(f"{_CALL}: inactive_threshold must be more than 0 s, not {seconds:g}")
    return seconds


def prefix_of(given: str | None, token: str) -> str:
    """Make the beginning of the consumers' names, which nobody else has.

    Two readers that were given the same prefix would delete each other's consumers, so a prefix does not stand alone.

    Args:
        given: `name_prefix`.
        token: What nobody else has.

    Raises:
        TypeError: The prefix is no text.
        ValueError: It cannot begin a consumer's name.
    """
    if given is None:
        return token
    fields.check_argument(_CALL, "name_prefix", str, given)
    try:
        return f"{subjects.consumer_name(given)}_{token}"
    except ValueError as error:
        raise ValueError(f"{_CALL}: name_prefix: {error}") from None


def more_of(replay_policy: str, metadata: Mapping[str, str] | None) -> dict[str, object]:
    """Give what the consumers' configurations say besides.

    Args:
        replay_policy: As it was given.
        metadata: As it was given.

    Raises:
        TypeError: One of them is of another kind.
        ValueError: There is no such policy.
    """
    fields.check_argument(_CALL, "replay_policy", api.ReplayPolicy, replay_policy)
    fields.check_argument(_CALL, "metadata", dict[str, str] | None, metadata)
    replay = _one_of("replay_policy", replay_policy, _REPLAYS)
    return {
        **({} if replay == "instant" else {"replay_policy": replay}),
        **({"metadata": dict(metadata)} if metadata else {}),
    }


def _one_of(option: str, given: str, known: Sequence[str]) -> str:
    name = given.value if isinstance(given, (api.DeliverPolicy, api.ReplayPolicy)) else given
    if name not in known:
        raise ValueError(f"{_CALL}: {option} must be one of {', '.join(known)}, not {name!r}")
    return name
