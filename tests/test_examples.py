"""Every program in docs/examples runs, with a server of its own and with one that is there, and prints what it should.

So does the demonstration, which is what README's first command runs, and README's program; what README names is there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import trionats
from tests.worlds import open_live, until
from trionats import bridge
from trionats.testing import NatsServer

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
README = Path(__file__).parent.parent / "README.md"

# What each prints, in any order where two tasks print.
EXPECTED = {
    "watch_object_store.py": [
        "stored:  db.toml, 19 bytes",
        "changed: db.toml, 24 bytes",
        "changed: log.toml, 15 bytes",
        "changed: db.toml, deleted",
    ],
    "service.py": [
        "an apple costs 3",
        "error 404 there is no stone",
        "endpoints: ['price', 'v2.count']",
        "2 requests, 1 errors, the last 404:there is no stone",
        "counted 1",
        "done",
    ],
    "buckets.py": [
        "1 value, 5 of each key, for 3600.0 s",
        "collected: ['hall.light', 'yard.light']",
        "at the origin: off",
        "mirrored: ['hall.light']",
    ],
    "discover_services.py": [
        "greeter 1.0.0: Greets whoever asks, at ['greet']",
        "greet: 1 request, 0 errors",
        "others: []",
    ],
    "monitoring.py": [
        "hub is ok",
        "till is connected to hub, and to ('orders.*',)",
        "0 streams, 0 bytes",
        "VARZ: nobody answers '$SYS.REQ.SERVER.PING.STATSZ': the user is not of the system account",
    ],
    "trace.py": [
        "in from client 'shop' as 'orders.old' of $G",
        "mapped to 'orders.new'",
        "--J stream 'ORDERS' as '': --X maximum payload exceeded",
        "--C client 'worker' on 'orders.*' of queue 'workers'",
        "worker would get it, as a member of workers",
        "ORDERS would not store it: maximum payload exceeded",
    ],
    "backup.py": [
        "all of it is there",
        "backed up: 100 messages",
        "restored: b'99' is the last one",
    ],
    "codec.py": [
        "in docs: ['docs/Read me.txt', 'docs/Grüße.txt']",
        "stored as: ['docs.Read=20me=2Etxt', 'docs.Gr=C3=BC=C3=9Fe=2Etxt', 'src.a=3Db=7E=2Epy']",
        "watched: ['src/a=b~.py']",
    ],
    "schedules.py": [
        *("water.garden: 10 minutes, by timer.garden", "water.garden: 10 minutes, by timer.garden"),
        *("timer.garden every 1 s to water.garden", "taken back: True"),
    ],
    "atomic_batch.py": [
        *("stored as 2 and 3", "nothing was moved: wrong last sequence: 2"),
        "the taker was not found; committed: False",
    ],
    "counters.py": [
        *("in Oslo: 3", "in Oslo: 2 after one came back", "of it in Oslo: 2"),
        "together: 1000000000000000000000000000002",
    ],
    "fast_ingest.py": ["10000 messages, the last one has sequence 10000", "2 is not stored: BadRequestError"],
    "watch_keys.py": [
        *("is:   hall.left on", "is:   hall.right off"),
        *("gets: hall.right on", "gets: hall.left DEL"),
        *("got:  hall.left dim", "got:  hall.left on"),
    ],
    "objects.py": ["stored: all 1000000 bytes", "film.bin has 8 chunks", "the copy is the same: True"],
    "read_in_order.py": ["after 2: 70", "after 3: 45", "after 5: 100"],
    "publish_subscribe.py": [
        "all: room.hall.temperature 18",
        "all: room.kitchen.temperature 21",
        "all: room.kitchen.temperature 22",
        "kitchen: room.kitchen.temperature 21",
    ],
    "streams.py": [
        "5 messages: {'orders.0': 3, 'orders.1': 2}",
        "at most 3600.0 s old, 10 of each subject",
        "2 deleted",
        "['ORDERS'] is copied, and the copy expires with it: True",
    ],
    "request_reply.py": ["Hello, trio!", "no reply in time", "nobody listens there"],
    "many_replies.py": [
        *("12:00 fine", "18:00 fine", "6:00 fine", "['oslo: fine', 'rome: fine']"),
        *("nobody is left", "oslo is closed", "rome is closed"),
    ],
    "fetch_batches.py": [
        *("4 orders: no. 1 no. 2 no. 3 no. 4", "4 orders: no. 5 no. 6 no. 7 no. 8", "2 orders: no. 9 no. 10"),
        *("nothing left", "one more: no. 11"),
    ],
    "publish_many.py": [
        "the last one has sequence 1000",
        *(
            f"{number} to readings.more was not stored: "
            "publish to 'readings.more': maximum messages exceeded (code 503, error 10077)"
            for number in range(3)
        ),
    ],
    "graceful_end.py": ["ready", "Hello, trio!", "closed", "nobody is left"],
    "work_queue.py": [
        "left: 0",
        "the second gives up b'???'",
        "the second has packed b'cake', delivery 1",
        "the second has packed b'tea', delivery 2",
    ],
    "events.py": ["Disconnected", "Reconnected"],
    "rolling_restart.py": ["LameDuck", "Moved", "every request was answered"],
    "beside_faststream.py": ["tea costs 3", "cake costs 5"],
    "consume.py": ["30 and 70 were done, 100 in all", "0 are left"],
    "key_value.py": [
        "the hall: ['on', 'dimmed']",
        "lamps: ['lamp.hall']",
        "the kitchen: key 'lamp.kitchen' of bucket 'settings' was deleted (revision 4)",
        "visits: 15",
        "paths: ['/lamp/garden'] are ['_root_.lamp.garden']",
    ],
    "lease.py": ["paid in: 50", "somebody else has it: True", "too late: True 70"],
    "leader_election.py": [
        *("north leads", "everybody sees: north", "south leads", "everybody sees: south"),
        *("south leads no longer", "south leads", "everybody sees: south", "everybody sees: nobody"),
    ],
    "partitions.py": [
        "partitions: {'left': [0, 1, 2], 'right': [3, 4, 5]}",
        "partitions: {'left': [0, 1], 'middle': [2, 3], 'right': [4, 5]}",
        "each customer's orders were packed in order: True",
    ],
    "watch_nats_py_store.py": ["stored:  monday.txt, 11 bytes", "changed: tuesday.txt, 17 bytes"],
}
CONCURRENT = {"publish_subscribe.py", "many_replies.py", "work_queue.py"}
LISTENS = {"events.py"}  # with a server that is there it listens for ten seconds

pytestmark = pytest.mark.usefixtures("server_executable")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command, how = [sys.executable, "-W", "error", *arguments], {"env": os.environ | environment, "timeout": 60}
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload,no-any-return]


def run(name: str, *arguments: str) -> list[str]:
    done = python(str(EXAMPLES / name), *arguments)
    assert (done.stderr, done.returncode) == ("", 0)
    lines = done.stdout.splitlines()
    return sorted(lines) if name in CONCURRENT else lines


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_with_a_server_of_its_own(name: str) -> None:
    assert [line for line in run(name) if line != "ReconnectFailed"] == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - LISTENS))
def test_with_a_server_that_is_there(name: str, shared_server: NatsServer) -> None:
    assert run(name, shared_server.url) == EXPECTED[name]


def readme() -> str:
    return README.read_text(encoding="utf-8")


def programs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", readme(), re.DOTALL)


def within(head: str, body: str) -> str:
    return "\n".join([head, *(f"    {line}" for line in body.splitlines())])


async def store(url: str) -> None:
    async with trio.open_nursery() as nursery, trionats.open_client(nursery, url) as nc:
        await (await nc.jetstream().create_object_store("configs")).put("db.toml", b"port = 5432")


def test_the_program_of_the_readme() -> None:
    program, workers, *_ = programs()
    compile(within("async def main():", workers), "README.md", "exec")
    with NatsServer(jetstream=True) as server:
        trio.run(store, server.url)
        changed = program.replace("nats://127.0.0.1:4222", server.url).replace("move_on_after(5)", "move_on_after(0.3)")
        assert server.url in changed
        assert "(0.3)" in changed
        done = python("-c", changed)
    assert (done.stdout, done.stderr, done.returncode) == ("db.toml 11\n", "", 0)


async def test_the_work_queue_of_the_readme() -> None:
    _, _, queue, *_ = programs()
    names: dict[str, Any] = {"trionats": trionats}
    exec(within("async def work(nc, nursery, cook):", queue), names)
    cooked = []

    async def cook(data: bytes) -> None:
        cooked.append(data)

    async with open_live(jetstream=True) as (_, nc, nursery):

        async def worked_off() -> bool:
            return bool(cooked) and not (await nc.jetstream().stream_info("ORDERS")).state.messages

        async with trio.open_nursery() as tasks:
            tasks.start_soon(names["work"], nc, nursery, cook)
            await until(worked_off)
            tasks.cancel_scope.cancel()
    assert cooked == [b"tea"]


async def test_the_stores_of_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, _, stores, *_ = programs()
    names: dict[str, Any] = {"trionats": trionats}
    exec(within("async def use(js, nursery, path, lead):", stores), names)
    (tmp_path / "report.pdf").write_bytes(bytes(1000))
    led = []

    async def lead(token: int) -> None:
        led.append(token)

    async with open_live(jetstream=True) as (_, nc, nursery):
        await names["use"](nc.jetstream(), nursery, tmp_path / "report.pdf", lead)
    assert led == [3]
    assert capsys.readouterr().out == "{'hall.power': b'off'}\n1000\n"


async def test_the_service_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    *_, service, _ = programs()
    names: dict[str, Any] = {"trionats": trionats, "trio": trio, "partial": partial}
    exec(within("async def use(nc, nursery):", service), names)
    async with open_live() as (_, nc, nursery):
        await names["use"](nc, nursery)
    assert capsys.readouterr().out == "b'3'\n['shop']\n"


async def test_what_the_readme_does_with_newer_servers(capsys: pytest.CaptureFixture[str]) -> None:
    *_, newer = programs()
    names: dict[str, Any] = {"trionats": trionats}
    exec(within("async def use(js, nursery):", newer), names)
    async with open_live(jetstream=True) as (_, nc, nursery):
        js = nc.jetstream()
        await names["use"](js, nursery)
        state = (await js.stream_info("BANK")).state
        (schedule,) = await js.schedules("BANK")
    assert capsys.readouterr().out == f"{10**30}\n"
    assert state.messages == 2 + 1000 + 1
    assert (schedule.cron, schedule.target) == ("@monthly", "bank.interest")


def test_what_the_readme_names_is_there() -> None:
    text = readme()
    opened = re.findall(r"^\| `(bridge\.)?(open_\w+)\(nursery, ", text, re.MULTILINE)
    assert [name for where, name in opened if not hasattr(bridge if where else trionats, name)] == []
    assert {name for where, name in opened if not where} == {
        name for name in trionats.__all__ if name.startswith("open_")
    }
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("https://")]
    assert targets
    assert [target for target in targets if not (README.parent / target).exists()] == []


def test_the_demonstration_finds_every_count_back_at_the_start() -> None:
    done = python("-m", "trionats", "demo")
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.endswith("\nEvery count is back at the start.\n")
    assert done.stdout.count("   back\n") == 7


SABOTAGE = {
    "consumers": "trionats._jetstream.ordered.source.OrderedSource._delete = lambda *_: None",
    "subscriptions": "trionats._core.attachments.Attachment.detach = lambda _: None",
    "a task, at first": """
watch_files = demo.watch_files
async def watch_and_leave(background, *others):
    await watch_files(background, *others)
    background.start_soon(demo.trio.sleep_forever)
demo.watch_files = watch_and_leave
""",
    "a task, later": """
by_stop = demo.by_stop
async def stop_and_leave(stage):
    stage.background.start_soon(demo.trio.sleep_forever)
    return await by_stop(stage)
demo.WAYS = (("rx.stop()", stop_and_leave), *demo.WAYS[1:])
""",
}


@pytest.mark.parametrize("sabotage", SABOTAGE.values(), ids=SABOTAGE)
def test_the_demonstration_finds_what_is_left(sabotage: str) -> None:
    imports = "import trionats._cli.demo as demo, trionats"
    done = python("-c", f"{imports}\n{sabotage}\ndemo.PATIENCE = 0.2\nraise SystemExit(demo.main())")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.endswith("\nSomething was left behind.\n")


def test_the_demonstration_says_what_it_needs() -> None:
    done = python("-m", "trionats", "demo", NATS_SERVER="/no/such/program")
    assert (done.stderr, done.returncode) == ("", 2)
    assert "/no/such/program" in done.stdout
    assert "pip install 'trionats[server]'" in done.stdout


def test_the_program_says_its_version_and_wants_a_command() -> None:
    assert python("-m", "trionats", "--version").stdout == f"trionats {trionats.__version__}\n"
    done = python("-m", "trionats")
    assert done.returncode == 2
    assert "demo" in done.stderr
