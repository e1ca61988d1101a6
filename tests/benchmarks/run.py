"""Start the server and the peer, let the clients take turns, and say what came of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import nats
from nats.js.api import KeyValueConfig, ObjectStoreConfig, StorageType
from nats.js.errors import ObjectNotFoundError

from tests.benchmarks.measuring import BATCH, BUCKET, KEYS, PATIENCE, STORED, STREAM, WRITTEN, Job, content
from tests.benchmarks.report import RATIOS, Summary, ratios, show, summaries
from trionats.testing import NatsServer

ROOT = Path(__file__).parent.parent.parent
SIZE = 128
WORKERS = 50
OBJECT_SIZE = 64 * 1024 * 1024


class Client(NamedTuple):
    """How one client is run: the driver, the packages that it needs, and what it calls the scenarios."""

    module: str
    needs: tuple[str, ...]
    scenarios: dict[str, str]


class Scenario(NamedTuple):
    """How many operations a run has, and on what."""

    operations: int
    of_objects: bool = False
    of_stream: bool = False
    of_keys: bool = False

    def count(self, scale: float) -> int:
        return self.operations if self.of_objects else max(int(self.operations * scale) // WORKERS, 1) * WORKERS


SCENARIOS = {
    "subscribe": Scenario(100_000),
    "publish": Scenario(200_000),
    "request": Scenario(5_000),
    "concurrent": Scenario(10_000),
    "consume": Scenario(100_000, of_stream=True),
    "fetch": Scenario(100_000, of_stream=True),
    "put": Scenario(1, of_objects=True),
    "get": Scenario(1, of_objects=True),
    "pool": Scenario(50_000),
    "publish_pipelined": Scenario(50_000),
    "ingest": Scenario(100_000),
    "kv_get": Scenario(5_000, of_keys=True),
    "kv_put": Scenario(5_000, of_keys=True),
    "snapshot": Scenario(100_000, of_keys=True),
    "service": Scenario(20_000),
}
ALL = {name: name for name in SCENARIOS if name not in ("pool", "ingest")}
NOT_BESIDE_IT = ("consume", "fetch", "publish_pipelined", "kv_get", "kv_put", "snapshot", "service")
BESIDE_JETSTREAM = {name: name for name in ALL if name not in NOT_BESIDE_IT}
CLIENTS = {
    "trionats": Client("on_trionats", ("trionats", "trio"), ALL | {"pool": "pool-1000", "ingest": "ingest"}),
    # The same with few receivers, to compare with.
    "trionats-10": Client("on_trionats", ("trionats", "trio"), {"pool": "pool-10"}),
    "natsio": Client("on_natsio", ("natsio",), ALL),
    "natsio-batch": Client("on_natsio", ("natsio", "natsio-jetstream-batch"), {"ingest": "ingest"}),
    "nats-py": Client("on_nats_py", ("nats-py",), ALL),
    "nats-py-callback": Client("on_nats_py", ("nats-py",), {"subscribe": "subscribe-callback"}),
    "nats-py-push": Client("on_nats_py", ("nats-py",), {"consume": "consume-pushed"}),
    "nats-py-trio-asyncio": Client("on_trio_asyncio", ("nats-py", "trio", "trio-asyncio"), BESIDE_JETSTREAM),
}
Run = dict[str, Any]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description="How much a message costs.")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="a list of %(default)s")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="a list of %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the median counts (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="does more or less of everything (%(default)s)")
    parser.add_argument("--json", type=Path, default="benchmarks.json", help="where the raw figures go (%(default)s)")
    parser.add_argument("--check", action="store_true", help="fail if a ratio is over its bound, or anything was lost")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="[CLIENT=]PATH",
        help="an interpreter for one client or for all; else one that has all the clients, else what each of them needs",
    )
    wishes = parser.parse_args(arguments)
    for asked, known in ((wishes.clients, CLIENTS), (wishes.scenarios, SCENARIOS)):
        if unknown := [name for name in asked.split(",") if name not in known]:
            parser.error(f"there is no {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    return wishes


def installed(python: str) -> dict[str, str]:
    """Ask an interpreter which of the packages it has, and in which versions."""
    code = "import json; from tests.benchmarks.measuring import versions; print(json.dumps(versions()))"
    asked = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return dict(json.loads(asked.stdout)) if asked.returncode == 0 else {}


def choose_interpreters(clients: Sequence[str], wishes: Sequence[str]) -> dict[str, str]:
    """Find an interpreter for each client: the same for all of them where there is one that has them all."""
    chosen = {client: path for client, _, path in (wish.rpartition("=") for wish in wishes) if client}
    candidates = [wish for wish in wishes if "=" not in wish] or [sys.executable, "python3.13", "python3.14", "python3"]
    has = {python: installed(python) for python in dict.fromkeys(candidates) if _exists(python)}
    missing = [client for client in clients if client not in chosen]
    for python, packages in has.items():
        if all(set(CLIENTS[client].needs) <= set(packages) for client in missing):
            return chosen | dict.fromkeys(missing, python)
    for client in missing:
        fitting = [python for python, packages in has.items() if set(CLIENTS[client].needs) <= set(packages)]
        if fitting:
            chosen[client] = fitting[0]
        else:
            print(f"{client}: no interpreter has {' and '.join(CLIENTS[client].needs)} (see --python); left out")
    return chosen


def _exists(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def open_peer(server: NatsServer) -> Iterator[None]:
    """Run the feeder and responder in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.peer", "127.0.0.1", str(server.port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as peer:
        try:
            assert peer.stdout is not None
            if peer.stdout.readline() != "ready\n":
                raise RuntimeError("the peer did not start")
            yield
        finally:
            peer.kill()


async def fill(url: str, count: int) -> None:
    """Make the stream that all consumers read: in memory, as a bucket is."""
    nc = await nats.connect(url)
    js = nc.jetstream()
    await js.add_stream(name=STORED, subjects=[STORED], storage=StorageType.MEMORY)
    for number in range(1, count + 1):
        # The server drops what comes faster than it stores, so it is waited for now and then.
        await (js if number % BATCH == 0 or number == count else nc).publish(STORED, b"x" * SIZE)
    await nc.close()


async def acknowledged(url: str, name: str, expected: int) -> int:
    """How many messages a consumer has confirmed, which is then deleted."""
    nc = await nats.connect(url)
    js = nc.jetstream()
    floor, deadline = 0, time.monotonic() + 2
    while floor < expected and time.monotonic() < deadline:
        info = await js.consumer_info(STORED, name)
        floor = info.ack_floor.consumer_seq if info.ack_floor is not None else 0
    await js.delete_consumer(STORED, name)
    await nc.close()
    return floor


async def prepare(url: str, object_size: int) -> None:
    """Make the bucket, with the object that all clients read: the same bytes, put by none of those measured."""
    nc = await nats.connect(url)
    js = nc.jetstream()
    store = await js.create_object_store(BUCKET, config=ObjectStoreConfig(storage=StorageType.MEMORY))
    await store.put("warm", content(object_size // 16))
    await store.put("object", content(object_size))
    await nc.close()


async def prepare_keys(url: str, count: int) -> None:
    """Make the bucket of keys that all clients read, and the one that they write."""
    nc = await nats.connect(url)
    js = nc.jetstream()
    for bucket in (KEYS, WRITTEN):
        await js.create_key_value(KeyValueConfig(bucket, storage=StorageType.MEMORY, direct=True))
    keys = [f"warm.{number}" for number in range(max(count // 20, 1))] + [f"key.{number}" for number in range(count)]
    for number, key in enumerate(keys, 1):
        await (js if number % BATCH == 0 or number == len(keys) else nc).publish(f"$KV.{KEYS}.{key}", b"x" * SIZE)
    await nc.close()


async def prepare_stream(url: str) -> None:
    """Make the stream that all clients publish into, kept small."""
    nc = await nats.connect(url)
    # nats-py knows nothing of fast ingest.
    config = {
        "name": STREAM,
        "subjects": [f"{STREAM}.>"],
        "storage": "memory",
        "max_msgs": 10_000,
        "allow_batched": True,
    }
    await nc.request(f"$JS.API.STREAM.CREATE.{STREAM}", json.dumps(config).encode())
    await nc.close()


async def clear(url: str, name: str) -> None:
    """Drop what a `put` has stored."""
    nc = await nats.connect(url)
    store = await nc.jetstream().object_store(BUCKET)
    for stored in (name, f"warm-{name}"):
        with suppress(ObjectNotFoundError):
            await store.delete(stored)
    await nc.close()


def one_run(server: NatsServer, client: str, scenario: str, python: str, turn: int, scale: float) -> Run:
    """Let one client do one scenario once."""
    driver, what = CLIENTS[client], SCENARIOS[scenario]
    count = what.count(scale)
    name = f"bench-{client}-{scenario}-{turn}"
    job = Job(driver.scenarios[scenario], server.url, name, count, SIZE, WORKERS, max(int(OBJECT_SIZE * scale), 65536))
    command = [python, "-m", f"tests.benchmarks.clients.{driver.module}", json.dumps(asdict(job))]
    nothing: Run = {"done": 0, "cpu": 0.0, "wall": 0.0, "versions": {}}
    run: Run = {"client": client, "scenario": scenario, "turn": turn, "count": count}
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE * 1.5, check=False)
        run |= json.loads(ran.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        run |= nothing | {"error": "did not end"}
    except (IndexError, ValueError):
        run |= nothing | {"error": (ran.stderr.strip().splitlines() or ["nothing was printed"])[-1]}
    run["lost"] = count - run["done"]
    if scenario == "publish" and not run["error"]:
        run["lost"] = sum(job.rounds) - arrived(server, name)
    if what.of_stream and not run["error"]:
        run["lost"] = sum(job.rounds) - asyncio.run(acknowledged(server.url, name, sum(job.rounds)))
    if what.of_objects:
        run["megabytes"] = job.object_size / 1e6
        asyncio.run(clear(server.url, name))
    return run


def arrived(server: NatsServer, name: str) -> int:
    """How many messages the server had from a client that has left."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        for connection in server.monitor("connz?state=closed&limit=10000&sort=stop")["connections"] or ():
            if connection.get("name") == name:
                return int(connection["in_msgs"])
        time.sleep(0.02)
    return 0


def measure(server: NatsServer, pythons: dict[str, str], wanted: argparse.Namespace) -> list[Run]:
    """Let all clients take turns at each scenario."""
    runs = []
    for scenario, turn, client in product(wanted.scenarios.split(","), range(wanted.repeats), pythons):
        if scenario in CLIENTS[client].scenarios:
            runs.append(one_run(server, client, scenario, pythons[client], turn, wanted.scale))
            if runs[-1]["error"]:
                print(f"{client} {scenario}: {runs[-1]['error']}")
    return runs


def machine(server: NatsServer) -> dict[str, Any]:
    varz = server.monitor("varz")
    cpu = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    about = {"system": platform.platform(), "cpu": cpu or platform.processor(), "cores": os.cpu_count()}
    return about | {"load": os.getloadavg(), "nats-server": varz["version"]}


def main(arguments: Sequence[str] | None = None) -> int:
    wanted = parse_arguments(arguments)
    pythons = choose_interpreters(wanted.clients.split(","), wanted.python)
    with NatsServer(jetstream=True) as server, open_peer(server):
        about = machine(server)
        if any(SCENARIOS[name].of_objects for name in wanted.scenarios.split(",")):
            asyncio.run(prepare(server.url, max(int(OBJECT_SIZE * wanted.scale), 65536)))
        asyncio.run(prepare_stream(server.url))
        if readers := [SCENARIOS[name] for name in wanted.scenarios.split(",") if SCENARIOS[name].of_stream]:
            asyncio.run(fill(server.url, 2 * max(each.count(wanted.scale) for each in readers)))
        if keyed := [SCENARIOS[name] for name in wanted.scenarios.split(",") if SCENARIOS[name].of_keys]:
            asyncio.run(prepare_keys(server.url, max(each.count(wanted.scale) for each in keyed)))
        runs = measure(server, pythons, wanted)
    table: list[Summary] = summaries(runs)
    compared = ratios(table)
    versions = {run["client"]: run["versions"] for run in runs if run["versions"]}
    show(table, compared, about, versions)
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about,
        "versions": versions,
        "summaries": [summary._asdict() for summary in table],
        "ratios": [comparison._asdict() for comparison in compared],
        "runs": runs,
    }
    wanted.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"raw figures: {wanted.json}")
    broken = any(ratio.value > ratio.bound for ratio in compared) or any(run["error"] or run["lost"] for run in runs)
    return int(wanted.check and (broken or len(compared) < len(RATIOS)))
