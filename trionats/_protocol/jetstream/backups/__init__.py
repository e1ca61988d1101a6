"""Backups of streams, as the `nats` tool keeps them: what stands in the directory, and when what came is whole."""
