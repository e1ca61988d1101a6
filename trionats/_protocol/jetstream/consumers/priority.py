"""Priority groups (ADR-42): on which terms a request for messages takes part in one, checked before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trionats._protocol import fields

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Terms"]

#: For which policy each term is.
_POLICIES: Final = {"min_pending": "overflow", "min_ack_pending": "overflow", "priority": "prioritized"}
_MOST_PRIORITY: Final = 9


@dataclass(frozen=True, slots=True)
class Terms:
    """A priority group, and on which terms it gives to us; None where nobody has chosen.

    Attributes:
        group: The group's name.
        min_pending: Only while at least so many messages wait (policy "overflow").
        min_ack_pending: Only while at least so many are unacknowledged (policy "overflow").
        priority: After those of lower numbers, from 0 to 9 (policy "prioritized").
    """

    group: str | None = None
    min_pending: int | None = None
    min_ack_pending: int | None = None
    priority: int | None = None

    def check(self, call: str) -> None:
        """Refuse what cannot be, whatever the consumer.

        Args:
            call: The call, for texts: "fetch".

        Raises:
            TypeError: A term is of another kind.
            ValueError: A number cannot be, or two terms exclude each other.
        """
        if self == _NONE:
            return
        fields.check_argument(call, "group", str | None, self.group)
        if self.group == "":
            raise ValueError(f"{call}: group must not be empty")
        for name, policy in _POLICIES.items():
            value = getattr(self, name)
            fields.check_argument(call, name, int | None, value)
            if value is not None and self.group is None:
                raise ValueError(f"{call}: {name} is for a priority group of the policy {policy!r}: name the group")
        for name in ("min_pending", "min_ack_pending"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{call}: {name} is {value}: it must be 1 or more")
        if self.priority is None:
            return
        if not 0 <= self.priority <= _MOST_PRIORITY:
            raise ValueError(f"{call}: priority is {self.priority}: it must be from 0 to {_MOST_PRIORITY}")
        if self.min_pending is not None or self.min_ack_pending is not None:
            raise ValueError(
                f"{call}: priority is for the policy 'prioritized', min_pending and min_ack_pending for 'overflow'"
            )

    def check_against(self, call: str, consumer: str, groups: Collection[str], policy: str | None) -> None:
        """Refuse a group, or terms, that the consumer does not have: the server would refuse the one, and ignore the other.

        Args:
            call: The call, for texts.
            consumer: The consumer: "consumer 'C' of stream 'S'".
            groups: Its priority groups.
            policy: Its priority policy.

        Raises:
            ValueError: They do not fit.
        """
        if groups and self.group is None:
            raise ValueError(f"{call}: {consumer} has priority groups: say which, as in group={min(groups)!r}")
        if self.group is not None and self.group not in groups:
            has = f"has {', '.join(map(repr, sorted(groups)))}" if groups else "has no priority groups"
            raise ValueError(f"{call}: group is {self.group!r}: {consumer} {has}")
        for name, wanted in _POLICIES.items():
            if getattr(self, name) is not None and policy != wanted:
                raise ValueError(f"{call}: {name} is for the policy {wanted!r}; that of {consumer} is {policy!r}")

    def fields(self) -> dict[str, object]:
        """Say what stands in each request."""
        named = {name: getattr(self, name) for name in ("group", *_POLICIES)}
        return {name: value for name, value in named.items() if value is not None}


_NONE: Final = Terms()
