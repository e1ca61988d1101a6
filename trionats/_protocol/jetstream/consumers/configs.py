"""What may stand in a consumer's configuration, beyond what each field may hold; and what of it came back.

What the server refuses anyway is refused here where its text would not name the field, and what it takes in silence for
something else (numbers below -1 for its defaults) is refused as well.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from trionats import api
from trionats._protocol import subjects
from trionats._told.moments import read_moment, written_moment

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["all_filters", "checked", "checked_group", "checked_moment", "left_out"]

_STARTS: Final = {"by_start_sequence": "opt_start_seq", "by_start_time": "opt_start_time"}
#: Those that are known; a newer server's may go with what it likes.
_POLICIES: Final = frozenset({"all", "last", "new", "last_per_subject", *_STARTS})
#: What -1 and None stand for the server's default in.
_NUMBERS: Final = (
    *("max_deliver", "max_waiting", "max_ack_pending", "rate_limit_bps", "num_replicas"),
    *("max_batch", "max_bytes"),
)
_PUSH: Final = ("deliver_subject", "deliver_group", "flow_control", "idle_heartbeat", "rate_limit_bps")
_is_group: Final = re.compile(r"[-A-Za-z0-9_/=]{1,16}").fullmatch


def checked(call: str, config: api.ConsumerConfig, *, pull_only: bool = False) -> api.ConsumerConfig:
    """Check the fields of a configuration against each other.

    Args:
        call: The call, for texts: "create_consumer".
        config: The configuration, of which each field alone was checked.
        pull_only: Whether the fields of push consumers are refused.

    Returns:
        The configuration as it is sent: one filter in a list is a single filter, since only that stands in the request's
        subject, by which permissions are granted.

    Raises:
        ValueError: Fields exclude each other, or one cannot be meant; the text names it.
        nats.errors.BadSubjectError: A filter is none.
    """
    if config.name and config.durable_name and config.name != config.durable_name:
        raise ValueError(f"{call}: name is {config.name!r} and durable_name {config.durable_name!r}: they are one")
    if pull_only:
        _check_pull(call, config)
    for name in _NUMBERS:
        number = getattr(config, name)
        if number is not None and number < -1:
            raise ValueError(f"{call}: {name} is {number}: it must be 0 or more, or -1 for the server's default")
    _check_start(call, config)
    _check_deliveries(call, config)
    _check_groups(call, config)
    for name in ("opt_start_time", "pause_until"):
        if getattr(config, name) is not None:
            checked_moment(call, name, getattr(config, name))
    return _with_filters(call, config)


def _check_pull(call: str, config: api.ConsumerConfig) -> None:
    given = [name for name in _PUSH if getattr(config, name)]
    if given:
        raise ValueError(
            f"{call}: {given[0]} is for push consumers, which are not created here: an existing one is read with "
            "open_consumer, and add_consumer manages any"
        )


def _check_start(call: str, config: api.ConsumerConfig) -> None:
    policy = _text(config.deliver_policy or "all")
    wanted = _STARTS.get(policy)
    for name in _STARTS.values():
        value = getattr(config, name)
        if name == wanted and not value:
            raise ValueError(f"{call}: deliver_policy {policy!r} needs {name}")
        if name != wanted and value and policy in _POLICIES:
            raise ValueError(f"{call}: {name} does not go with deliver_policy {policy!r}")
    if (config.opt_start_seq or 0) < 0:
        raise ValueError(f"{call}: opt_start_seq is {config.opt_start_seq}: sequences begin at 1")


def _check_deliveries(call: str, config: api.ConsumerConfig) -> None:
    steps, most = len(config.backoff or ()), config.max_deliver or -1
    if 0 < most < steps:
        raise ValueError(f"{call}: backoff has {steps} steps, more than max_deliver ({most})")


def _check_groups(call: str, config: api.ConsumerConfig) -> None:
    policy = _text(config.priority_policy or "none")
    groups = config.priority_groups or []
    if policy == "none" and groups:
        raise ValueError(f"{call}: priority_groups need a priority_policy")
    if policy != "none" and not groups:
        raise ValueError(f"{call}: priority_policy {policy!r} needs priority_groups")
    for group in groups:
        checked_group(call, group)


def checked_group(call: str, group: object) -> str:
    """Check the name of a priority group.

    Raises:
        TypeError: It is no text.
        ValueError: It is none.
    """
    if not isinstance(group, str):
        raise TypeError(f"{call}: a priority group must be text, not {type(group).__name__}")
    if _is_group(group) is None:
        raise ValueError(f"{call}: priority group {group[:40]!r}: a name has 1 to 16 of A-Z a-z 0-9 - _ / =")
    return group


def checked_moment(call: str, name: str, moment: object) -> str:
    """Check a time that the server is told, and give it as RFC 3339 text.

    Args:
        call: The call, for texts.
        name: The field.
        moment: A datetime that knows its zone, or such text, as nats-py has it.

    Raises:
        TypeError: It is something else.
        ValueError: It does not know its zone, or is no time.
    """
    if not isinstance(moment, str):
        return written_moment(call, name, moment)
    try:
        read_moment(moment)
    except ValueError:
        text = f"{call}: {name} is {moment[:40]!r}: no RFC 3339 time, as 2030-01-31T12:00:00Z"
        raise ValueError(text) from None
    return moment


def _with_filters(call: str, config: api.ConsumerConfig) -> api.ConsumerConfig:
    several = list(config.filter_subjects or ())
    if several and config.filter_subject:
        raise ValueError(f"{call}: either filter_subject or filter_subjects, not both")
    for one in several:
        subjects.pattern(f"{call}: filter_subjects", one)
    if config.filter_subject:
        subjects.pattern(f"{call}: filter_subject", config.filter_subject)
    if len(several) == 1:
        return replace(config, filter_subject=several[0], filter_subjects=None)
    return config


def all_filters(config: Mapping[str, Any]) -> frozenset[str]:
    """Collect the filters of a configuration, whichever of its two fields has them.

    Args:
        config: As it stands on the wire.
    """
    several = config.get("filter_subjects")
    one = config.get("filter_subject")
    found = [*(several if isinstance(several, list) else ()), one]
    return frozenset(text for text in found if isinstance(text, str) and text)


def left_out(sent: Mapping[str, Any], echoed: object) -> bool:
    """Say whether a server has not taken the filters that it was told: before 2.10 it knew one at the most.

    Args:
        sent: The configuration that was sent.
        echoed: What came back.
    """
    return isinstance(echoed, dict) and all_filters(sent) != all_filters(echoed)


def _text(value: object) -> str:
    return str(getattr(value, "value", value))
