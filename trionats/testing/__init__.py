"""A real nats-server for tests and demos; leak assertions.

`NatsServer` is synchronous, for fixtures and scripts: `with NatsServer(jetstream=True) as server:`. `open_server` is the
same thing for Trio code: `async with open_server(jetstream=True) as server:` gives a `TrioNatsServer`, whose methods are
coroutines that leave the event loop alone.

`assert_no_leaks` compares what lives before its block with what lives after it: Trio's tasks, a client's tables, and the
server's connections, subscriptions and consumers.
"""

from __future__ import annotations

from trionats.testing._leaks import HasStatistics, assert_no_leaks
from trionats.testing._server import Connection, NatsServer, ServerOptions, find_server
from trionats.testing._trio_server import TrioNatsServer, open_server

__all__ = [
    "Connection",
    "HasStatistics",
    "NatsServer",
    "ServerOptions",
    "TrioNatsServer",
    "assert_no_leaks",
    "find_server",
    "open_server",
]

# A traceback or a page shows the name that users import.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
