"""Publishing into streams: one message until it is known what became of it, and many in flight.

From the ground up: `destination` (which domain is meant), `publish` (one), `flight` and `publisher` (many).
"""
