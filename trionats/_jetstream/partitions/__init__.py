"""Partitioned consumer groups: created, changed and deleted (`groups`), and read by their members (`reading`).

What decides stands in `_protocol.jetstream.partitions`.
"""
