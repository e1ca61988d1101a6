"""What a reader of a consumer wants: the options of `open_consumer`, checked before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Demand", "OnLeave"]

#: What becomes of messages that were delivered and not received: they are given back at once, or left to the ack wait.
OnLeave: TypeAlias = Literal["nak", "leave"]

#: The credit in bytes where nobody chose one.
MAX_BYTES: Final = 8 * 1024 * 1024
_LEAST_EXPIRES: Final = 1.0
_LEAST_HEARTBEAT: Final = 0.5
_LONGEST_HEARTBEAT: Final = 30.0
#: What the server keeps in nanoseconds has to fit into 63 bits; and nobody waits longer than a day.
_LONGEST_EXPIRES: Final = 86_400.0
_MOST: Final = (1 << 31) - 1
_PRIORITIES: Final = range(10)


@dataclass(frozen=True, slots=True)
class Demand:
    """The options of `open_consumer`, which says what they mean; None where nobody has chosen.

    Raises:
        TypeError: One of them is of another kind.
        ValueError: One of them cannot be, or two exclude each other.
    """

    max_messages: int = 500
    max_bytes: int | None = None
    expires: float = 30.0
    heartbeat: float | None = None
    threshold_messages: int | None = None
    threshold_bytes: int | None = None
    stop_after: int = 0
    on_leave: OnLeave | None = None
    group: str | None = None
    min_pending: int | None = None
    min_ack_pending: int | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        _whole("max_messages", self.max_messages, 1)
        _whole("max_bytes", self.max_bytes, 1)
        _whole("threshold_messages", self.threshold_messages, 0, self.max_messages - 1)
        _whole("threshold_bytes", self.threshold_bytes, 0, self.credit_bytes - 1)
        _whole("stop_after", self.stop_after, 0)
        _whole("min_pending", self.min_pending, 1)
        _whole("min_ack_pending", self.min_ack_pending, 1)
        _whole("priority", self.priority, _PRIORITIES.start, _PRIORITIES.stop - 1)
        _seconds("expires", self.expires, _LEAST_EXPIRES, _LONGEST_EXPIRES)
        if self.heartbeat is not None:
            _seconds("heartbeat", self.heartbeat, _LEAST_HEARTBEAT, min(_LONGEST_HEARTBEAT, self.expires / 2))
        if self.on_leave not in ("nak", "leave", None):
            raise ValueError(f"open_consumer(): on_leave must be 'nak' or 'leave', not {self.on_leave!r}")
        if self.group is not None and not isinstance(self.group, str):
            raise TypeError(f"open_consumer(): group must be text, not {type(self.group).__name__}")
        if self.group is None:
            for name in ("min_pending", "min_ack_pending", "priority"):
                if getattr(self, name) is not None:
                    raise ValueError(f"open_consumer(): {name} is for consumers with priority groups: name the group")
        elif not self.group:
            raise ValueError("open_consumer(): group must not be empty")
        if self.priority is not None and (self.min_pending or self.min_ack_pending):
            raise ValueError(
                "open_consumer(): priority is for the policy 'prioritized', "
                "min_pending and min_ack_pending for 'overflow': they exclude each other"
            )

    @property
    def terms(self) -> dict[str, object]:
        """What stands in each request besides: the group, and on which terms it gives to us."""
        named = {name: getattr(self, name) for name in ("group", "min_pending", "min_ack_pending", "priority")}
        return {name: value for name, value in named.items() if value is not None}

    def check_group(self, consumer: str, groups: Collection[str], policy: str) -> None:
        """Refuse a priority group, or terms, that the consumer does not have.

        Args:
            consumer: The consumer, for the text.
            groups: Its priority groups.
            policy: Its priority policy.

        Raises:
            ValueError: They do not fit.
        """
        if groups and self.group is None:
            raise ValueError(f"open_consumer(): {consumer} has priority groups: say which by group={min(groups)!r}")
        if self.group is not None and self.group not in groups:
            told = f"has the groups {sorted(groups)}" if groups else "has no priority groups"
            raise ValueError(f"open_consumer(): group {self.group!r}: {consumer} {told}")
        for name, wanted in (("min_pending", "overflow"), ("min_ack_pending", "overflow"), ("priority", "prioritized")):
            if getattr(self, name) is not None and policy != wanted:
                raise ValueError(
                    f"open_consumer(): {name} is for the priority policy {wanted!r}; that of {consumer} is {policy!r}"
                )

    @property
    def credit_bytes(self) -> int:
        """The credit in bytes: the one that was chosen, or the usual one."""
        return MAX_BYTES if self.max_bytes is None else self.max_bytes

    @property
    def pulse(self) -> float:
        """How often the server is to say that it is there."""
        if self.heartbeat is not None:
            return self.heartbeat
        return min(_LONGEST_HEARTBEAT, max(_LEAST_HEARTBEAT, self.expires / 2))

    def only(self, what: str, apply: Collection[str]) -> None:
        """Refuse the options that say nothing to what is read.

        Args:
            what: What is read, for the text: "an ordered consumer".
            apply: The names of the options that do say something.

        Raises:
            ValueError: Another one was chosen.
        """
        for field in fields(self):
            if field.name not in apply and getattr(self, field.name) != field.default:
                raise ValueError(f"open_consumer(): {field.name} does not apply to {what}")


def _whole(name: str, value: object, least: int, most: int = _MOST) -> None:
    if value is None and name not in ("max_messages", "stop_after"):
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"open_consumer(): {name} must be a whole number, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"open_consumer(): {name} must be from {least} to {most}, not {value}")


def _seconds(name: str, value: object, least: float, most: float) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"open_consumer(): {name} must be a number of seconds, not {type(value).__name__}")
    if not (isfinite(value) and least <= value <= most):
        raise ValueError(f"open_consumer(): {name} must be from {least:g} to {most:g} s, not {value:g}")
