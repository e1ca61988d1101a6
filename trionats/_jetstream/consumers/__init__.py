"""Consumers, and how they are read: by fetches, and as feeds.

Lives here: the handle of one (`consumer`), `fetching`, and the kinds of feeds (`consuming` and `push`, which share
`delivery_feed`, and `ordered_consumer`). What decides stands in `_protocol.jetstream.consumers`, under the same names, and of ordered ones
in `_protocol.jetstream.ordered`.
"""
