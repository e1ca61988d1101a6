"""Message tracing (design 24): the headers with which servers tell where a message goes (ADR-41, nats-server 2.11)."""

from __future__ import annotations

from trionats._protocol import subjects
from trionats._protocol.tracing import trace_fields


def trace_headers(dest: str, *, only: bool = False) -> dict[str, str]:
    """Make the headers that have a message traced.

    Each server that the message passes publishes what it did with it, as JSON, to the subject `dest`: subscribe there
    before. They are headers as others are, so they go with whatever publishes: `nc.publish(..., headers=trace_headers(dest))`,
    requests, and publishing into a stream; with headers of your own as `{**mine, **trace_headers(dest)}`.

    Args:
        dest: Where the servers report to; no wildcards.
        only: Deliver the message to nobody: see where it would go.

    Returns:
        The headers.

    Raises:
        nats.errors.BadSubjectError: `dest` is no subject.
    """
    subjects.publish_subject(dest)
    return trace_fields(dest, only=only)
