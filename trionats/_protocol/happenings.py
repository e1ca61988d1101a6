"""What an engine says has happened, besides messages, and what a broken connection leaves open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Event", "Garbage", "InfoChanged", "Loss", "OverLimit", "PongArrived", "Refused"]


@dataclass(frozen=True, slots=True)
class PongArrived:
    """A PONG came for a PING that somebody waits for."""

    token: Any


@dataclass(frozen=True, slots=True)
class InfoChanged:
    """The server described itself anew."""

    info: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """The server sent -ERR; the connection goes on unless the server closes it."""

    text: str


@dataclass(frozen=True, slots=True)
class OverLimit:
    """The server has refused subscriptions because there are too many; `Engine.over_limit` says which."""

    text: str


@dataclass(frozen=True, slots=True)
class Garbage:
    """The server sent what is not the protocol; nothing after it can be read."""

    error: Exception


Event = PongArrived | InfoChanged | Refused | OverLimit | Garbage


@dataclass(frozen=True, slots=True)
class Loss:
    """What a broken connection leaves open."""

    frames: int
    """A program's publishes in the batch that was being sent: they may or may not have arrived, and are not sent again."""
    pings: list[Any] = field(default_factory=list)
    """The tokens of the pings whose PONG will not come."""
