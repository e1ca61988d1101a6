"""nats-py's own asyncio objects as feeds, through trio-asyncio.

Lives here: a trio-asyncio loop in a nursery, nats-py's client as a connection with the seam of our own, and the feeds over it.
Only this folder and `trionats.bridge`, its public face, know `asyncio`, `trio_asyncio` and `nats.aio`.
"""
