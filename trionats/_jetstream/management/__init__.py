"""Streams and consumers: created, read, listed, changed, deleted.

Lives here: the calls under nats-py's names (`manager`), and what they and the handles of consumers ask (`consumer_requests`).
"""

from trionats._jetstream.management.manager import STREAM_EXISTS, JetStreamManager, purged

__all__ = ["STREAM_EXISTS", "JetStreamManager", "purged"]
