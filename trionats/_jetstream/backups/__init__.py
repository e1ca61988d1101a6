"""Backups of streams: written to a directory, and restored from one, as the `nats` tool does."""
