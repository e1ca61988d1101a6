"""Advisories and metrics: which kinds there are, where they are published, and how one is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from trionats import advisories
from trionats._protocol.subjects import widest
from trionats._told.reading import read as read_told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats.advisories import Advisory

__all__ = ["checked_kinds", "patterns", "read"]

#: The kinds by the ends of their types, and the subjects of each behind the prefix.
_KINDS: Final[dict[str, tuple[type[Advisory], tuple[str, ...]]]] = {
    "advisory.v1.api_audit": (advisories.ApiAudit, ("ADVISORY.API",)),
    "advisory.v1.api_limit_reached": (advisories.ApiLimitReached, ("ADVISORY.API.LIMIT_REACHED",)),
    "advisory.v1.stream_action": (
        advisories.StreamAction,
        ("ADVISORY.STREAM.CREATED.*", "ADVISORY.STREAM.UPDATED.*", "ADVISORY.STREAM.DELETED.*"),
    ),
    "advisory.v1.stream_leader_elected": (advisories.StreamLeaderElected, ("ADVISORY.STREAM.LEADER_ELECTED.*",)),
    "advisory.v1.stream_quorum_lost": (advisories.StreamQuorumLost, ("ADVISORY.STREAM.QUORUM_LOST.*",)),
    "advisory.v1.stream_batch_abandoned": (advisories.StreamBatchAbandoned, ("ADVISORY.STREAM.BATCH_ABANDONED.*",)),
    "advisory.v1.snapshot_create": (advisories.SnapshotCreate, ("ADVISORY.STREAM.SNAPSHOT_CREATE.*",)),
    "advisory.v1.snapshot_complete": (advisories.SnapshotComplete, ("ADVISORY.STREAM.SNAPSHOT_COMPLETE.*",)),
    "advisory.v1.restore_create": (advisories.RestoreCreate, ("ADVISORY.STREAM.RESTORE_CREATE.*",)),
    "advisory.v1.restore_complete": (advisories.RestoreComplete, ("ADVISORY.STREAM.RESTORE_COMPLETE.*",)),
    "advisory.v1.consumer_action": (
        advisories.ConsumerAction,
        ("ADVISORY.CONSUMER.CREATED.*.*", "ADVISORY.CONSUMER.DELETED.*.*"),
    ),
    "advisory.v1.consumer_pause": (advisories.ConsumerPause, ("ADVISORY.CONSUMER.PAUSE.*.*",)),
    "advisory.v1.consumer_leader_elected": (
        advisories.ConsumerLeaderElected,
        ("ADVISORY.CONSUMER.LEADER_ELECTED.*.*",),
    ),
    "advisory.v1.consumer_quorum_lost": (advisories.ConsumerQuorumLost, ("ADVISORY.CONSUMER.QUORUM_LOST.*.*",)),
    "advisory.v1.consumer_group_pinned": (advisories.ConsumerGroupPinned, ("ADVISORY.CONSUMER.PINNED.*.*",)),
    "advisory.v1.consumer_group_unpinned": (advisories.ConsumerGroupUnpinned, ("ADVISORY.CONSUMER.UNPINNED.*.*",)),
    "advisory.v1.max_deliver": (advisories.MaxDeliver, ("ADVISORY.CONSUMER.MAX_DELIVERIES.*.*",)),
    "advisory.v1.nak": (advisories.Nak, ("ADVISORY.CONSUMER.MSG_NAKED.*.*",)),
    "advisory.v1.terminated": (advisories.Terminated, ("ADVISORY.CONSUMER.MSG_TERMINATED.*.*",)),
    "metric.v1.consumer_ack": (advisories.ConsumerAck, ("METRIC.CONSUMER.ACK.*.*",)),
    "advisory.v1.domain_leader_elected": (advisories.DomainLeaderElected, ("ADVISORY.DOMAIN.LEADER_ELECTED",)),
    "advisory.v1.server_out_of_space": (advisories.ServerOutOfSpace, ("ADVISORY.SERVER.OUT_OF_STORAGE",)),
    "advisory.v1.server_removed": (advisories.ServerRemoved, ("ADVISORY.SERVER.REMOVED",)),
    "advisory.v1.meta_rescue": (advisories.MetaRescue, ("ADVISORY.SERVER.META_RESCUE",)),
}
_TYPE_BEGINS: Final = "io.nats.jetstream."
_ALL: Final = ("ADVISORY.>", "METRIC.>")
_SUBJECTS: Final[dict[type[Advisory], tuple[str, ...]]] = {advisories.Advisory: _ALL, **dict(_KINDS.values())}


def checked_kinds(kinds: Sequence[object]) -> tuple[type[Advisory], ...]:
    """Check which kinds are wanted.

    Args:
        kinds: Classes of `trionats.advisories`; none for all.

    Raises:
        TypeError: One of them is none.
    """
    for kind in kinds:
        if not isinstance(kind, type) or kind not in _SUBJECTS:
            raise TypeError(f"open_advisories(): a kind must be a class of trionats.advisories, not {kind!r}")
    return tuple(kind for kind in _SUBJECTS if kind in kinds) or (advisories.Advisory,)


def patterns(prefix: str, kinds: Sequence[type[Advisory]]) -> list[str]:
    """Say what is to be subscribed, each subject once.

    Args:
        prefix: What they begin with: "$JS.EVENT".
        kinds: Of which kinds they are to be.
    """
    return widest([f"{prefix}.{subject}" for kind in kinds for subject in _SUBJECTS[kind]])


def read(subject: str, data: bytes) -> Advisory:
    """Read one.

    Args:
        subject: The subject that it was published to.
        data: Its payload.

    Returns:
        An instance of its kind, or of `Advisory` where that is not known here.

    Raises:
        ValueError: It is none, or not what its type says.
        TypeError: So is it.
    """
    said = json.loads(data)
    if not isinstance(said, dict):
        raise TypeError("it is no JSON object")
    return read_told(_kind_of(said.get("type")), said, "the advisory", subject=subject, raw=said)


def _kind_of(name: object) -> type[Advisory]:
    if not isinstance(name, str):
        return advisories.Advisory
    kind, _ = _KINDS.get(name.removeprefix(_TYPE_BEGINS), (advisories.Advisory, ()))
    return kind
