"""What a reader may have to do: whoever decides says it, and who carries it out tells what came of it.

All of them wait, fail, and look at a consumer. The rest is an ordered reader's (`Action`), or of those who ask for messages
of somebody's consumer (`Measure`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from trionats._protocol.jetstream.pull import Pull

__all__ = [
    "ALL",
    "LAST_PER_SUBJECT",
    "Action",
    "Create",
    "Delete",
    "Fail",
    "Find",
    "Inspect",
    "Look",
    "Measure",
    "Start",
    "Wait",
]


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading begins, in the server's words: `policy` and, for two of the policies, `sequence` or `time`.

    `resumes`: what is before `sequence` was read at another time, so what is there has to be the same stream still, and nothing of it
    may have gone from `sequence` on.
    """

    policy: str
    sequence: int = 0
    time: str = ""
    resumes: bool = False

    def config(self) -> dict[str, object]:
        """Give the fields of a consumer's configuration that say so."""
        fields: dict[str, object] = {"deliver_policy": self.policy}
        if self.sequence:
            fields["opt_start_seq"] = self.sequence
        if self.time:
            fields["opt_start_time"] = self.time
        return fields


ALL: Final = Start("all")
LAST_PER_SUBJECT: Final = Start("last_per_subject")


@dataclass(frozen=True, slots=True)
class Create:
    """Create a consumer of this name and configuration, then tell `created` or `create_failed`."""

    name: str
    config: dict[str, object]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the consumer of this name, without waiting for the response."""

    name: str


@dataclass(frozen=True, slots=True)
class Inspect:
    """Ask for the consumer's info, then tell `inspected` or `inspect_failed`."""

    name: str


@dataclass(frozen=True, slots=True)
class Measure:
    """Find out how large the next message is, then tell `measured`."""


@dataclass(frozen=True, slots=True)
class Look:
    """Ask for the stream's info, then tell `looked` or `look_failed`."""


@dataclass(frozen=True, slots=True)
class Find:
    """Ask the stream's leader for the last sequence that matches one of `filters`, then tell `found` or `look_failed`."""

    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fail:
    """Give up: reading cannot go on."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`, unless something comes."""

    until: float


Action: TypeAlias = Create | Delete | Inspect | Look | Find | Fail | Wait | Pull
