"""Which API level (ADR-44) the fields of a configuration need, and which of them a server has left out.

Strategy
    A server of 2.12 or later refuses what asks for a level that it does not have (`Nats-Required-Api-Level`). Older ones do
    not look at the header, and leave out what they do not know without a word. So the level is asked for first
    (`$JS.API.INFO`; 2.10 and older name none); where nobody may ask, the configuration that comes back is compared (design 73).

    The levels are those that the server itself notes in a configuration's metadata (`_nats.req.level`), and two that it
    does not: of policies and consumers that an older one cannot read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["HEADER", "REFUSED", "Need", "absent", "greatest", "of_consumer", "of_stream"]

#: The header that says which level a request needs.
HEADER: Final = "Nats-Required-Api-Level"
#: The server's number for: this level is not mine.
REFUSED: Final = 10185
_VERSIONS: Final = {1: "2.11", 2: "2.12", 4: "2.14", 5: "2.15"}
_STREAM: Final = {
    "allow_msg_ttl": 1,
    "subject_delete_marker_ttl": 1,
    "allow_msg_counter": 2,
    "allow_atomic": 2,
    "allow_msg_schedules": 2,
    "persist_mode": 2,
    "allow_batched": 4,
}
_CONSUMER: Final = {
    "pause_until": 1,
    "priority_groups": 1,
    "priority_policy": 1,
    "priority_timeout": 1,
}
#: What is as good as nothing, and what needs another level than other values of its field.
_NOTHING: Final = frozenset({("persist_mode", "default"), ("priority_policy", "none")})
_SPECIAL: Final = {("priority_policy", "prioritized"): 2, ("ack_policy", "flow_control"): 4}


class Need(NamedTuple):
    """A field of a configuration, and the level that it needs."""

    field: str
    level: int

    def complaint(self, how: str) -> str:
        """Say that a server does not have it.

        Args:
            how: What the server did or has, behind "this one".
        """
        return (
            f"{self.field} needs a server of {_VERSIONS[self.level]} or later (API level {self.level}); this one {how}"
        )


def of_stream(config: Mapping[str, Any]) -> list[Need]:
    """List what a stream's configuration needs.

    Args:
        config: As it is sent.
    """
    found = list(_needs(config, _STREAM))
    sources = {"mirror": [config.get("mirror")], "sources": config.get("sources")}
    for name, entries in sources.items():
        # A server says it, or a file: it may be anything.
        if isinstance(entries, list) and any(isinstance(entry, dict) and entry.get("consumer") for entry in entries):
            found.append(Need(f"{name}.consumer", 4))
    return found


def of_consumer(config: Mapping[str, Any]) -> list[Need]:
    """List what a consumer's configuration needs.

    Args:
        config: As it is sent.
    """
    return list(_needs(config, _CONSUMER))


def _needs(config: Mapping[str, Any], table: Mapping[str, int]) -> Iterator[Need]:
    for name, value in config.items():
        # A list has no hash, and no level of its own.
        told = (name, value) if isinstance(value, str) else (name, "")
        level = _SPECIAL.get(told) or table.get(name)
        if level and value and told not in _NOTHING:
            yield Need(name, level)


def greatest(needs: list[Need]) -> Need | None:
    """Say which need is hardest to meet; None where there is none."""
    return max(needs, key=lambda need: need.level, default=None)


def absent(needs: list[Need], echoed: object) -> Need | None:
    """Find what a server has left out.

    Args:
        needs: Of what was sent.
        echoed: The configuration as the server tells it.

    Returns:
        What is not there; None where all is, or nothing can be said.
    """
    if not isinstance(echoed, dict):
        return None
    told = {need.field for find in (of_stream, of_consumer) for need in find(echoed)}
    return next((need for need in needs if need.field not in told), None)
