"""The house as data: which rooms there are, who may import whom, and what may stand where.

This is the only copy of the floors. Everything here is read from the syntax trees; nothing is imported. What is listed has to
exist, and what exists has to be listed.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "trionats"

# The rooms of each folder, from its ground to its top. A room imports only what stands in a row before its own, types included;
# rooms of one row do not know each other. A folder stands in its parent as one room. "*" is the face of a folder: its
# `__init__`, where that hands names on.
FLOORS: dict[str, list[str]] = {
    "": [
        "_told _version errors testing",
        "advisories api monitoring",
        "_discretion _protocol events",
        "_feeds",
        "_connection",
        "_core",
        "_jetstream _services _system",
        "_bridge _client",
        "bridge",
        "_open",
        "*",
        "_cli",
        "__main__",
    ],
    "_bridge": [
        "* attachments loop messages overlay requests",
        "client commands",
        "connection",
        "pull_subscription stores subscription",
    ],
    "_cli": [
        "* demo",
    ],
    "_connection": [
        "* callbacks options timers websocket",
        "identity tls",
        "cli_context wire",
        "dial",
        "dial_plan handshake",
        "session",
        "migration",
        "supervisor",
    ],
    "_core": [
        "* attachments barrier deadlines foreign logbook message tracing",
        "frames requests",
        "drain pipeline request_many",
        "messaging",
        "listeners",
        "connection",
        "hops status",
    ],
    "_feeds": [
        "* busy_tasks opening run",
        "pace",
        "feed",
        "bounded",
    ],
    "_jetstream": [
        "* idle jitter messages progress whereabouts",
        "api",
        "direct files ordered",
        "management",
        "buckets consumers publishing",
        "kv objects",
        "backups",
        "streams",
        "counters partitions schedules",
        "context",
    ],
    "_jetstream.backups": [
        "* directories",
        "restoring saving",
    ],
    "_jetstream.consumers": [
        "* ordered_consumer oversize",
        "fetching",
        "consumer",
        "delivery_feed",
        "consuming push",
    ],
    "_jetstream.kv": [
        "* buckets",
        "access watch",
        "deletes holding",
        "store",
        "lease",
    ],
    "_jetstream.management": [
        "consumer_requests",
        "manager",
        "*",
    ],
    "_jetstream.messages": [
        "* deliverers processing",
        "giving_back",
        "next_message",
        "message",
    ],
    "_jetstream.objects": [
        "* buckets purging transfer",
        "access chunks",
        "infos reader sealing sources",
        "doubting orphans",
        "replacing stream",
        "deleting editing links putting reading",
        "store",
    ],
    "_jetstream.ordered": [
        "* source",
        "entries",
        "listing watcher",
    ],
    "_jetstream.partitions": [
        "* groups",
        "reading",
    ],
    "_jetstream.publishing": [
        "* accounting destination",
        "publish",
        "flight staging",
        "batch ingest_flight publisher",
        "ingest",
    ],
    "_open": [
        "* advisories consumer event_feed ingest partition publisher replies service subscription watcher",
    ],
    "_protocol": [
        "* commands fields happenings headers index receivers showing subjects timers versions",
        "addresses outbox parser registrations server_errors",
        "admission auth replies servers tracing",
        "engine jetstream services",
        "migration monitoring",
    ],
    "_protocol.auth": [
        "* credentials",
        "cli_context login user_jwt",
    ],
    "_protocol.jetstream": [
        "* acks buckets counters fitting levels listing publishing refusals",
        "advisories backups direct kv objects pull schedules",
        "actions",
        "consumers ordered partitions",
    ],
    "_protocol.jetstream.backups": [
        "* archive incoming manifest remains",
    ],
    "_protocol.jetstream.buckets": [
        "* configs kinds",
        "origins",
    ],
    "_protocol.jetstream.consumers": [
        "* configs priority push",
        "demand fetching",
        "consuming",
    ],
    "_protocol.jetstream.kv": [
        "* codecs configs entries keys",
        "writing",
        "lease",
    ],
    "_protocol.jetstream.objects": [
        "* configs cutting infos names remnants",
        "orphans places promises",
        "doubts links writing",
        "editing",
    ],
    "_protocol.jetstream.ordered": [
        "* fetch_credit leader options",
        "snapshot",
        "resuming",
    ],
    "_protocol.jetstream.partitions": [
        "* assignment",
        "groups",
        "assets",
        "member",
    ],
    "_protocol.jetstream.publishing": [
        "* ingest publish",
        "batch publisher",
    ],
    "_protocol.monitoring": [
        "* requests",
        "answers",
    ],
    "_protocol.services": [
        "* answers names staffing words",
        "deadlines discovery failures",
        "tally",
    ],
    "_services": [
        "* discovery isolation questions request",
        "endpoint",
        "serving",
        "service",
    ],
    "_told": [
        "* moments",
        "reading",
    ],
    "api": [
        "_lossless",
        "*",
    ],
    "monitoring": [
        "_server",
        "_answers _trace",
        "*",
    ],
    "testing": [
        "_server",
        "_trio_server",
        "_leaks",
        "*",
    ],
}
# What is seen at a glance.
MOST_FLOORS = 12
MOST_ROOMS = 25

# Imports inside functions, each with its reason: all that there are.
LAZY = {
    ("_protocol.auth.credentials", "nkeys"): "an extra, for those who sign",
    ("_connection.dial", "trionats._connection.websocket"): "it needs an extra",
    ("_open.watcher", "trionats.bridge"): "for nats-py's own stores; it brings trio-asyncio, which patches asyncio",
}

CELLAR_FORBIDS = frozenset(
    {"trio", "asyncio", "trio_asyncio", "socket", "ssl", "time", "select", "selectors", "threading", "subprocess"}
)
ASYNCIO = frozenset({"asyncio", "trio_asyncio", "nats.aio"})
MAY_USE_ASYNCIO = ("_bridge", "bridge")

# Where tasks are started, and by how many calls.
TASKS = {
    "_bridge.client": 1,
    "_bridge.commands": 2,
    "_bridge.connection": 1,
    "_bridge.loop": 1,
    "_cli.demo": 1,
    "_client": 2,
    "_connection.session": 3,
    "_connection.supervisor": 3,
    "_core.connection": 1,
    "_feeds.feed": 1,
    "_jetstream.kv.lease": 1,
    "_jetstream.publishing.accounting": 1,
    "_services.serving": 1,
}
# Where `send_all` stands, and how often: in the handshake, while there is no writer task yet; in the session's writer; where a
# stream passes it on to the stream below.
SEND_ALL = {
    "_connection.wire": 1,
    "_connection.handshake": 1,
    "_connection.session": 1,
    "_connection.websocket": 2,
}
# From here up a user could have written the module: no underscore attribute of what another module has made.
PUBLIC_ONLY = (
    "_jetstream",
    "_services",
    "_system",
    "_client",
    "_open",
    "_bridge",
    "bridge",
    "_cli",
    "testing",
)
# Except for these of nats-py and of trio-asyncio, which the bridge cannot do without.
OTHERS_PRIVATE = {
    "_bridge.attachments": "_id _remove_sub",
    "_bridge.client": "_flush_queue _transport",
    "_bridge.connection": "_error_cb _reading_task _server_info",
    "_bridge.loop": "_io_task _main_loop_one _nursery _unregister_task",
    "_bridge.pull_subscription": "_js _nc _prefix",
    "_bridge.stores": "_js _name _pre _prefix _stream",
    "bridge": "_js _nc _pre",
}


class Module(NamedTuple):
    """One source file of the package."""

    name: str
    path: Path
    tree: ast.Module
    source: str

    @property
    def is_folder(self) -> bool:
        return self.path.stem == "__init__"

    def is_in(self, *places: str) -> bool:
        return any(self.name == place or self.name.startswith(f"{place}.") for place in places)


class Import(NamedTuple):
    """One imported module, by its full name."""

    target: str
    line: int
    in_function: bool


def load(path: Path) -> Module:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    source = path.read_text(encoding="utf-8")
    return Module(name, path, ast.parse(source, str(path)), source)


MODULES = {module.name: module for module in map(load, sorted(PACKAGE.rglob("*.py")))}
ROW = {
    (folder, room): row for folder, rows in FLOORS.items() for row, rooms in enumerate(rows) for room in rooms.split()
}


def is_module(name: str) -> bool:
    return name.removeprefix("trionats.") in MODULES


def imports(module: Module) -> list[Import]:
    """All imports of a module, those for type checkers included."""
    inner = {
        id(below)
        for function in ast.walk(module.tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for below in ast.walk(function)
    }
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.append(Import(full if is_module(full) else node.module or "", node.lineno, id(node) in inner))
    return found


def place(name: str) -> tuple[str, ...]:
    """Say through which folders a module is reached; what a folder's own `__init__` does, it does as "*"."""
    module = MODULES[name]
    return (*(name.split(".") if name else ()), *(("*",) if module.is_folder else ()))


def goes_down(importer: str, imported: str) -> bool:
    """Say whether an import leads to a lower floor of the first folder in which the two ways part."""
    one, other = place(importer), place(imported)
    depth = next((depth for depth, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if depth is None:
        return False
    folder = ".".join(one[:depth])
    return ROW[folder, other[depth]] < ROW[folder, one[depth]]


def count_calls(module: Module, *names: str) -> int:
    """Count the calls of something of that name, whatever it is an attribute of."""
    functions = [node.func for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    called = [
        function.attr if isinstance(function, ast.Attribute) else function.id
        for function in functions
        if isinstance(function, ast.Attribute | ast.Name)
    ]
    return sum(name in names for name in called)


def where_called(*names: str) -> dict[str, int]:
    """Say which modules call something of that name, and how often."""
    counted = {name: count_calls(module, *names) for name, module in MODULES.items()}
    return {name: count for name, count in counted.items() if count}


def public_functions(module: Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the module's functions and methods that have no underscore anywhere in their path."""
    found: list[ast.FunctionDef | ast.AsyncFunctionDef] = []

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                visit(node.body)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                found.append(node)

    visit(module.tree.body)
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def own_private_names(module: Module) -> set[str]:
    """Return the underscore names that the module itself gives to its classes and their instances."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for below in ast.walk(target):
                    if isinstance(below, ast.Name):
                        names.add(below.id)
                    elif isinstance(below, ast.Attribute) and ast.unparse(below.value) in ("self", "cls"):
                        names.add(below.attr)
    return {name for name in names if is_private(name)}


def others_private_names(module: Module) -> set[str]:
    """Return the underscore attributes that a module uses of what it does not define."""
    own = own_private_names(module)
    return {
        node.attr
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and node.attr not in own
        and ast.unparse(node.value) not in ("self", "cls", "super()")
    }


each_module = pytest.mark.parametrize("module", MODULES.values(), ids=[name or "__init__" for name in MODULES])
each_folder = pytest.mark.parametrize("folder", FLOORS, ids=[folder or "trionats" for folder in FLOORS])


def test_every_room_is_listed_and_every_listed_room_is_there() -> None:
    there = {
        (".".join(module.name.split(".")[:-1]), module.name.split(".")[-1])
        for module in MODULES.values()
        if module.name
    }
    faces = {(module.name, "*") for module in MODULES.values() if module.is_folder}
    assert set(ROW) == there | faces
    assert len(ROW) == sum(len(rooms.split()) for rows in FLOORS.values() for rooms in rows)


@each_folder
def test_a_folder_is_seen_at_a_glance(folder: str) -> None:
    rooms = [room for rooms in FLOORS[folder] for room in rooms.split() if room != "*"]
    assert len(rooms) <= MOST_ROOMS
    assert len([rooms for rooms in FLOORS[folder] if rooms != "*"]) <= MOST_FLOORS


@each_module
def test_imports_go_down(module: Module) -> None:
    own = [found for found in imports(module) if found.target.partition(".")[0] == "trionats"]
    targets = [(found.line, found.target.removeprefix("trionats").lstrip(".")) for found in own]
    wrong = [f"line {line} imports {target}" for line, target in targets if not goes_down(module.name, target)]
    assert not wrong


@each_module
def test_imports_are_written_in_full(module: Module) -> None:
    assert not [node.lineno for node in ast.walk(module.tree) if isinstance(node, ast.ImportFrom) and node.level]


def test_imports_stand_at_the_top_except_for_these() -> None:
    lazy = {
        (module.name, found.target) for module in MODULES.values() for found in imports(module) if found.in_function
    }
    assert lazy == set(LAZY)


@each_module
def test_the_cellar_knows_no_tasks_no_network_and_no_clock(module: Module) -> None:
    if not module.is_in("_protocol", "_told"):
        return
    assert not [found for found in imports(module) if found.target.partition(".")[0] in CELLAR_FORBIDS]
    assert not [node.lineno for node in ast.walk(module.tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


@each_module
def test_only_the_bridge_speaks_asyncio(module: Module) -> None:
    if module.is_in(*MAY_USE_ASYNCIO):
        return
    assert not [
        found.line
        for found in imports(module)
        if any(found.target == name or found.target.startswith(f"{name}.") for name in ASYNCIO)
    ]


def test_tasks_are_started_in_these_places_only() -> None:
    starts = Counter(where_called("start_soon"))
    for module in MODULES.values():
        awaited = [node.value for node in ast.walk(module.tree) if isinstance(node, ast.Await)]
        functions = [node.func for node in awaited if isinstance(node, ast.Call)]
        named = [node for node in functions if isinstance(node, ast.Attribute) and node.attr == "start"]
        if count := sum("nursery" in ast.unparse(node.value) for node in named):
            starts[module.name] += count
    assert starts + Counter(where_called("create_task")) == TASKS
    assert not where_called("ensure_future", "spawn_system_task", "run_coroutine_threadsafe")


def test_one_place_sends() -> None:
    assert where_called("send_all") == SEND_ALL


def test_no_type_is_asserted_that_the_checker_cannot_see() -> None:
    assert not where_called("cast")


@each_module
def test_no_async_generator_is_public(module: Module) -> None:
    for function in public_functions(module):
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        yields = any(isinstance(node, ast.Yield) for node in ast.walk(function))
        assert not yields or function.decorator_list, f"{function.name} is an async generator"


@each_module
def test_no_coroutine_takes_a_timeout(module: Module) -> None:
    for function in public_functions(module):
        if isinstance(function, ast.AsyncFunctionDef):
            named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            assert "timeout" not in {argument.arg for argument in named}, function.name


def test_upper_floors_use_public_names_only() -> None:
    """An underscore attribute is used on `self`, `cls` and what the module itself defines, never on another's object."""
    used = {
        module.name: names
        for module in MODULES.values()
        if module.is_in(*PUBLIC_ONLY) and (names := others_private_names(module))
    }
    assert used == {name: set(names.split()) for name, names in OTHERS_PRIVATE.items()}


@each_module
def test_public_names_only_are_imported(module: Module) -> None:
    """`from trionats._feeds.feed import feeding` is one house; `from trionats._client import _Reader` is a break-in."""
    wrong = [
        f"line {node.lineno}: {alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trionats")
        for alias in node.names
        if is_private(alias.name) and not is_module(f"{node.module}.{alias.name}")
    ]
    assert not wrong


@each_module
def test_every_module_says_what_it_is(module: Module) -> None:
    text = ast.get_docstring(module.tree)
    assert text
    assert text.splitlines()[0].endswith(".")


@each_module
def test_cancelled_has_two_ls(module: Module) -> None:
    assert "cance" + "led" not in module.source.lower()


def test_top_level_of_the_project() -> None:
    """Five names, dot files, and perhaps what we found out about others' software: nothing else that git knows."""
    root = PACKAGE.parent
    given = {"pyproject.toml", "trionats", "tests", "docs", "README.md"}
    besides = {"build", "dist", "findings"}
    there = {
        path.name for path in root.iterdir() if not path.name.startswith((".", "__")) and path.suffix != ".egg-info"
    }
    assert there - besides == given
