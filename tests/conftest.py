"""What all tests share: a real server, a watchdog for tests that use one, seeds, and no garbage left over.

Markers: `live` is for tests that talk to a real nats-server (everything in `tests/live`, and whatever asks for the
`nats_server` fixture); they run on the real clock and under a watchdog. `level(number)` is for those whose server has to have an
API level (ADR-44): 1 is 2.11, 2 is 2.12, 4 is 2.14; older servers are asked, and the test is skipped. Environment: `NATS_SERVER`
names the server to run, `TRIONATS_REQUIRE_SERVER=1` makes a
missing nats-server an error instead of a skip, `TRIONATS_SEED` repeats a run's random choices and its order of tasks.

`pytest` for all of it shares the tests out among processes, each with a server of its own, since half of them wait; a part of
it (files, `-k`, `-m`) runs in one process. `pytest -n 0` runs all of it in one, `pytest -n 2 FILES` a part in two.

`pytestmark = pytest.mark.usefixtures("autojump_clock")` puts all tests of a module on a clock that jumps ahead, but for those
with `@pytest.mark.trio(run=trio.run)`.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import random
import re
import signal
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trionats
from tests.cancelling import same_schedule
from tests.certificates import Authority
from trionats.testing import NatsServer, TrioNatsServer, find_server

LIVE_SECONDS = 30.0
# A shielded hang does not hear of the watchdog's cancellation; faulthandler's own time-out (60 s) shows where it is.
SEED = int(os.environ.get("TRIONATS_SEED") or random.SystemRandom().randrange(2**32))
LIVE_TESTS = Path(__file__).parent / "live"
#: How many processes share the suite: at any time about half of the tests wait, for a server or for a clock.
PROCESSES = min((os.cpu_count() or 1) + 1, 8)
MOCK_CLOCKS = frozenset({"autojump_clock", "mock_clock"})
#: What looks like a key or a JWT: the tests make new ones at each start.
NEW_EACH_TIME = re.compile(r"eyJ|(?i:[a-z2-7]{40})")
#: What a `repr` shows of a thing that does not say what it is: elsewhere in each process.
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"live(seconds={LIVE_SECONDS:g}): talks to a real nats-server, in real time")
    config.addinivalue_line(
        "markers", "level(number): what it tries needs a server of this API level; skipped on others"
    )
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is in the background of a shell; the tests of Ctrl-C would wait for ever, and the programs they start, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # this is one of the processes that share, and shares no more
    os.environ["TRIONATS_SEED"] = str(SEED)  # theirs, too
    os.environ.setdefault(
        "PYTHONHASHSEED", "0"
    )  # they must collect the same tests in the same order, whatever stands in sets
    option = config.option
    part = config.args_source is not config.ArgsSource.TESTPATHS or option.keyword or option.markexpr
    watched = option.usepdb or option.collectonly or option.capture == "no"
    if getattr(option, "numprocesses", 0) is None and not part and not watched:
        option.numprocesses, option.dist = PROCESSES, "worksteal"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"repeat its random choices with TRIONATS_SEED={SEED}")


def pytest_report_header() -> list[str]:
    try:
        server = str(find_server())
    except FileNotFoundError as error:
        server = str(error)
    return [f"nats-server: {server}", f"seed: TRIONATS_SEED={SEED}"]


def jumping(async_fn: Callable[..., Awaitable[Any]], *args: object, **options: Any) -> Any:  # noqa: ANN401 - trio.run's
    """Run on a clock that jumps ahead when everybody waits."""
    options["clock"] = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(async_fn, *args, **options)


def watched(seconds: float) -> Callable[..., Any]:
    """Make a `trio.run` that cancels what runs in it, from outside the loop, when it takes too long.

    From outside, because a signal's exception in the middle of the event loop leaves Trio unusable for every test that
    follows; and by a thread's clock, so that it also works where Trio's own clock stands still.
    """

    def run(async_fn: Callable[..., Awaitable[Any]], *args: object, **options: Any) -> Any:  # noqa: ANN401 - trio.run's
        lived = ""

        async def main() -> Any:  # noqa: ANN401 - trio.run's
            token = trio.lowlevel.current_trio_token()

            def bark() -> None:
                nonlocal lived
                lived = tree_of_tasks()
                scope.cancel()

            def expired() -> None:
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(bark)

            timer = threading.Timer(seconds, expired)
            timer.daemon = True
            timer.start()
            try:
                with trio.CancelScope() as scope:
                    return await async_fn(*args)
            finally:
                timer.cancel()

        try:
            result = trio.run(main, **options)
        except Exception as error:
            if lived:
                raise TimeoutError(f"cancelled by the watchdog after {seconds:g} s; there lived\n{lived}") from error
            raise
        if lived:
            raise TimeoutError(f"cancelled by the watchdog after {seconds:g} s; there lived\n{lived}")
        return result

    return run


def tree_of_tasks() -> str:
    """Say which tasks live and where each of them waits."""
    lines: list[str] = []

    def describe(task: trio.lowlevel.Task, depth: int) -> None:
        frames = [f"{frame.f_code.co_qualname}:{line}" for frame, line in task.iter_await_frames()]
        lines.append(f"{'  ' * depth}{task.name}: {' > '.join(frames[-4:])}")
        for nursery in task.child_nurseries:
            for child in sorted(nursery.child_tasks, key=lambda t: t.name):
                describe(child, depth + 1)

    root = trio.lowlevel.current_root_task()
    if root is not None:
        describe(root, 0)
    return "\n".join(lines)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keep what is new in each process out of the names of tests: their seeds follow from their names."""
    return argname if isinstance(val, str | bytes) and NEW_EACH_TIME.search(repr(val)) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ADDRESS.search(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid}: another name in each process; give its parameters `ids`")
        fixtures = set(getattr(item, "fixturenames", ()))
        live = LIVE_TESTS in item.path.parents or "nats_server" in fixtures
        # One that says how long it takes, be it for its whole file, is not to be hidden by one that does not.
        if live and item.get_closest_marker("live") is None:
            item.add_marker("live")
        mark = item.get_closest_marker("live")
        clocks = fixtures & MOCK_CLOCKS
        if mark is not None and clocks:
            # The clock would jump ahead while a real server is still thinking.
            raise pytest.UsageError(f"{item.nodeid}: {', '.join(clocks)} can't be used together with a real server")
        test = getattr(item, "obj", None)
        test = getattr(getattr(test, "hypothesis", None), "inner_test", test)
        if not inspect.iscoroutinefunction(test):
            continue
        # pytest-trio lets a marker choose the `run`; in front of its own, which comes after us.
        if mark is not None:
            item.add_marker(pytest.mark.trio(run=watched(mark.kwargs.get("seconds", LIVE_SECONDS))), append=False)
        elif "autojump_clock" in clocks and not MOCK_CLOCKS & set(inspect.signature(test).parameters):
            # It looks for clocks among a test's arguments, and not where `usefixtures` asks for one. A test may choose its own.
            if any("run" in chosen.kwargs for chosen in item.iter_markers("trio")):
                continue
            item.add_marker(pytest.mark.trio(run=jumping), append=False)


@pytest.fixture(scope="session")
def server_executable() -> Path:
    try:
        return find_server()
    except FileNotFoundError as error:
        if os.environ.get("TRIONATS_REQUIRE_SERVER", "0") != "0":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_server(server_executable: Path) -> Iterator[NatsServer]:
    with NatsServer(jetstream=True, name="tests", executable=server_executable) as server:
        yield server


@pytest.fixture
def nats_server(shared_server: NatsServer) -> Iterator[TrioNatsServer]:
    """The session's server, with JetStream: for tests that leave it running. Others start one of their own."""
    if not shared_server.running:
        shared_server.start()
    yield TrioNatsServer(shared_server)
    shared_server.resume() if shared_server.running else shared_server.start()


@pytest.fixture(scope="session")
def api_level(server_executable: Path) -> int:
    """What the server says that it can do."""

    async def ask(url: str) -> int:
        async with trio.open_nursery() as nursery, trionats.open_client(nursery, url) as nc:
            account = await nc.jetstream().account_info()
        return account.api.level or 0

    with NatsServer(jetstream=True, executable=server_executable) as server:
        return trio.run(ask, server.url)


@pytest.fixture(autouse=True)
def on_a_server_that_can_do_it(request: pytest.FixtureRequest) -> None:
    """Skip what the marker `level` says is more than this server can."""
    needed = max((mark.args[0] for mark in request.node.iter_markers("level")), default=0)
    if needed and (level := request.getfixturevalue("api_level")) < needed:
        pytest.skip(f"it needs API level {needed}, and this server has {level}")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> str:
    """A seed for this test: the run's, and the test's own name, so that tests do not depend on each other's draws."""
    return f"{SEED}/{request.node.nodeid}"


@pytest.fixture
def rng(seed: str) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Somebody who issues certificates, for this test."""
    return Authority(tmp_path)


@pytest.fixture(autouse=True)
def schedule(seed: str) -> Iterator[None]:
    """Let the seed also say in which order Trio runs its tasks: what fails in one order fails again under TRIONATS_SEED."""
    with same_schedule(seed):
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    # What the imports made is there for good: frozen, it costs the collections below nothing.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_garbage() -> Generator[None]:
    """Collect what the test dropped while it is still this test's fault: a leaked socket warns, and warnings are errors."""
    yield
    gc.collect()
    # What has survived is not this test's: frozen, it costs the tests that follow nothing, of which there are thousands.
    gc.freeze()
