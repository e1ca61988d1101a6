"""What a reader of a consumer wants: the options of `open_consumer`, checked before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from trionats._protocol.fields import check_argument
from trionats._protocol.jetstream.consumers.priority import Terms

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
#: What None means wherever an option has nothing to decide.
_ALOUD: Final = {"on_leave": "nak"}


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
        _seconds("expires", self.expires, _LEAST_EXPIRES, _LONGEST_EXPIRES)
        if self.heartbeat is not None:
            _seconds("heartbeat", self.heartbeat, _LEAST_HEARTBEAT, min(_LONGEST_HEARTBEAT, self.expires / 2))
        if self.on_leave not in ("nak", "leave", None):
            raise ValueError(f"open_consumer(): on_leave must be 'nak' or 'leave', not {self.on_leave!r}")
        self.terms.check("open_consumer()")

    @property
    def terms(self) -> Terms:
        """The priority group, and on which terms it gives to us."""
        return Terms(self.group, self.min_pending, self.min_ack_pending, self.priority)

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
            # Who says what is done anyway asks for nothing.
            usual = (field.default, _ALOUD.get(field.name))
            if field.name not in apply and getattr(self, field.name) not in usual:
                raise ValueError(f"open_consumer(): {field.name} does not apply to {what}")


def _whole(name: str, value: object, least: int, most: int = _MOST) -> None:
    if value is None and name not in ("max_messages", "stop_after"):
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"open_consumer(): {name} must be a whole number, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"open_consumer(): {name} must be from {least} to {most}, not {value}")


def _seconds(name: str, value: float, least: float, most: float) -> None:
    check_argument("open_consumer()", name, float, value)
    if not least <= value <= most:
        raise ValueError(f"open_consumer(): {name} must be from {least:.12g} to {most:.12g} s, not {value:.12g}")
