"""The cellar: every decision that needs no network, no task and no clock.

Lives here: the wire format, what waits to be sent (`outbox`), one session after another (`engine`), two at once (`migration`),
which server is next, and, in folders of their own, `auth` and `jetstream`. It may know `errors`, `api` and itself; not Trio,
asyncio, sockets or the time, which it is told.
"""
