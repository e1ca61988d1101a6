"""The floors of the house as data: who may import whom, and what may be called where.

The table is that of `trionats/__init__.py` and `docs/design.rst`. A module imports only from rows above its own.
Everything here is read from the syntax trees; nothing is imported.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "trionats"

# From the bottom of the house to its top. Modules of one row do not know each other.
FLOORS = (
    ("errors", "_version"),
    ("api", "events", "_discretion"),
    ("_protocol",),
    ("_protocol.showing",),
    (
        "_protocol.subjects",
        "_protocol.headers",
        "_protocol.addresses",
        "_protocol.alarms",
        "_protocol.fields",
        "_protocol.index",
    ),
    ("_protocol.admission", "_protocol.numbering", "_protocol.happenings"),
    ("_protocol.credentials",),
    ("_protocol.issuing", "_protocol.contexts"),
    ("_protocol.parser", "_protocol.commands"),
    ("_protocol.subscriptions",),
    ("_protocol.servers", "_protocol.pulling", "_protocol.acks"),
    ("_protocol.leader", "_protocol.refusals"),
    ("_protocol.snapshot",),
    ("_protocol.ordered", "_protocol.objects", "_protocol.remnants"),
    ("_protocol.login", "_protocol.engine", "_protocol.replies"),
    ("_protocol.move",),
    ("_identity",),
    ("_tls", "_websocket"),
    ("_tracing",),
    ("_transport",),
    ("_busy", "_deadlines", "_foreign", "_run", "_logbook"),
    ("_feed",),
    ("_message",),
    ("_options",),
    ("_contexts", "_handshake"),
    ("_session",),
    ("_moving",),
    ("_link",),
    ("_requests",),
    ("_many_request", "_drain", "_frames"),
    ("_attachment", "_facts"),
    ("_client",),
    ("_subscription",),
    ("_replies",),
    ("_api",),
    ("_management",),
    ("_destination",),
    ("_jetstream",),
    ("_consumer", "_purging"),
    ("_chunks", "_kv"),
    ("_infos",),
    ("_objects",),
    ("_watcher",),
    ("_services",),
    ("_asyncio_loop",),
    ("_answers", "_carried"),
    ("_nats_py",),
    ("_bridged",),
    ("bridge",),
    ("_nats_server",),
    ("", "testing"),
    ("_demo",),
    ("__main__",),
)

# Imports upwards at run time, inside a function, each with its reason.
UPWARDS = {
    ("_watcher", "bridge"): "open_watcher also takes nats-py's own stores",
}

# Types of an upper floor that a module names, for type checkers only, each with its reason.
NAMED_FROM_BELOW = {
    ("_message", "_client"): "a message knows the client that it can be answered through",
    ("_requests", "_many_request"): "those with an inbox of their own are requests, too",
    ("_answers", "_nats_py"): "split off _nats_py",
    ("_answers", "_carried"): "what the connection gives it",
    ("_carried", "_nats_py"): "split off _nats_py",
    ("_client", "_jetstream"): "jetstream() returns one; what makes it is handed down when the package is imported",
    ("_jetstream", "_objects"): "object_store() returns one; the class is handed down when the package is imported",
}

# Function-level imports, each with its reason (module, what it imports).
LAZY = {
    ("_protocol.credentials", "nkeys"): "an extra, for those who sign",
    ("_transport", "trionats"): "_websocket needs an extra",
    ("_watcher", "trionats"): UPWARDS["_watcher", "bridge"],
}

CELLAR_FORBIDS = frozenset(
    {"trio", "asyncio", "trio_asyncio", "socket", "ssl", "time", "select", "selectors", "threading", "subprocess"}
)
ASYNCIO = frozenset({"asyncio", "trio_asyncio"})
MAY_USE_ASYNCIO = frozenset(
    {"_asyncio_loop", "_answers", "_carried", "_nats_py", "_bridged", "bridge"}
)  # the last one, in six parts
# Two were split off _client.
MAY_START_TASKS = frozenset({"_client", "_link", "_session", "_feed", "_services", "bridge"})

# Where `send_all` stands, and how often: in the handshake, while there is no writer task yet; in the link's writer;
# where a stream passes it on to the stream below.
SEND_ALL = {"_handshake": 1, "_session": 1, "_transport": 1, "_websocket": 2}

# From here up a user could have written the module: no underscore attribute of a lower floor's object.
PUBLIC_ONLY = frozenset(
    {
        "_api",
        "_management",
        "_destination",
        "_jetstream",
        "_consumer",
        "_purging",
        "_chunks",
        "_infos",
        "_kv",
        "_objects",
        "_watcher",
        "_services",
        "testing",
        "_demo",
    }
)

# What leaves the limits of size, with the reason: "module" or "module:function".
MODULE_LINES = 600
FUNCTION_LINES = 80
LARGE = {
    "_client": "half of its lines are docstrings: what users call stands in one place",
    "_client:open_client": "its docstring says what each option does",
}


class Module(NamedTuple):
    """One source file of the package."""

    name: str
    path: Path
    tree: ast.Module
    source: str

    @property
    def in_cellar(self) -> bool:
        return self.name.partition(".")[0] == "_protocol"


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
ROW = {name: row for row, names in enumerate(FLOORS) for name in names}


def absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = ["trionats", *module.name.split(".")] if module.name else ["trionats"]
    if module.path.stem != "__init__":
        package.pop()
    package = package[: len(package) - (node.level - 1)]
    return ".".join([*package, *([node.module] if node.module else [])])


def is_submodule(name: str) -> bool:
    return name.startswith("trionats.") and name.removeprefix("trionats.") in MODULES


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
            base = absolute(module, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.append(Import(full if is_submodule(full) else base, node.lineno, id(node) in inner))
    return found


def for_type_checkers(module: Module) -> set[int]:
    """Return the lines that stand under `if TYPE_CHECKING:`."""
    return {
        line
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in node.body
        for line in range(child.lineno, (child.end_lineno or child.lineno) + 1)
    }


def calls(module: Module, *names: str) -> list[int]:
    """Return the lines on which something of that name is called, whatever it is an attribute of."""
    return [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Attribute) and node.func.attr in names)
            or (isinstance(node.func, ast.Name) and node.func.id in names)
        )
    ]


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


each_module = pytest.mark.parametrize("module", MODULES.values(), ids=[name or "__init__" for name in MODULES])


def test_the_table_has_each_name_once() -> None:
    assert len(ROW) == sum(len(names) for names in FLOORS)


def test_the_comment_of_the_package_names_the_modules_in_this_order() -> None:
    entry = re.compile(r"^#   (  )?((?:\w+)(?:, \w+)*)/? {2,}\S", re.MULTILINE)
    named = [
        f"_protocol.{name}" if inside else name
        for inside, names in entry.findall(MODULES[""].source)
        for name in names.split(", ")
    ]
    assert sorted(named) == sorted(MODULES.keys() - {"", "_version"})
    assert [ROW[name] for name in named] == sorted(ROW[name] for name in named)


@each_module
def test_the_table_knows_every_module(module: Module) -> None:
    assert module.name in ROW


@each_module
def test_imports_go_down(module: Module) -> None:
    wrong = []
    typing_only = for_type_checkers(module)
    for found in imports(module):
        if found.target.partition(".")[0] != "trionats":
            continue
        target = found.target.removeprefix("trionats").lstrip(".")
        if found.in_function and (module.name, target) in UPWARDS:
            continue
        if found.line in typing_only and (module.name, target) in NAMED_FROM_BELOW:
            continue
        if ROW[target] >= ROW[module.name]:
            wrong.append(f"line {found.line} imports {target or 'trionats'}")
    assert not wrong


@each_module
def test_the_cellar_knows_no_tasks_no_network_and_no_clock(module: Module) -> None:
    if not module.in_cellar:
        return
    assert not [found for found in imports(module) if found.target.partition(".")[0] in CELLAR_FORBIDS]
    assert not [node.lineno for node in ast.walk(module.tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


@each_module
def test_only_the_bridge_speaks_asyncio(module: Module) -> None:
    if module.name in MAY_USE_ASYNCIO:
        return
    typing_only = for_type_checkers(module)
    assert not [
        found
        for found in imports(module)
        if (found.target.partition(".")[0] in ASYNCIO or found.target.startswith("nats.aio"))
        and found.line not in typing_only
    ]


@each_module
def test_tasks_are_started_in_four_places_only(module: Module) -> None:
    assert not calls(module, "ensure_future", "spawn_system_task", "run_coroutine_threadsafe")
    # asyncio's tasks: one call under way, and what carries out our commands while somebody is attached.
    assert not calls(module, "create_task") or module.name in {"_asyncio_loop", "_nats_py"}
    if module.name in MAY_START_TASKS | {"_demo"}:  # the demo is a user
        return
    assert not calls(module, "start_soon")
    awaited = [node.value for node in ast.walk(module.tree) if isinstance(node, ast.Await)]
    functions = [node.func for node in awaited if isinstance(node, ast.Call)]
    starts = [node for node in functions if isinstance(node, ast.Attribute) and node.attr == "start"]
    assert not [node.lineno for node in starts if "nursery" in ast.unparse(node.value)]


@each_module
def test_one_place_sends(module: Module) -> None:
    assert len(calls(module, "send_all")) <= SEND_ALL.get(module.name, 0)


@each_module
def test_imports_stand_at_the_top(module: Module) -> None:
    lazy = [found for found in imports(module) if found.in_function]
    assert not [found for found in lazy if (module.name, found.target.partition(".")[0]) not in LAZY]


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


@each_module
def test_upper_floors_use_public_names_only(module: Module) -> None:
    """An underscore attribute is used on `self`, `cls` and what the module itself defines, never on a lower floor."""
    if module.name not in PUBLIC_ONLY:
        return
    own = private_attributes(module)
    wrong = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Attribute) or not is_private(node.attr):
            continue
        on_self = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
        if not on_self and node.attr not in own:
            wrong.append(f"line {node.lineno}: {ast.unparse(node)}")
    assert not wrong


@each_module
def test_upper_floors_import_public_names_only(module: Module) -> None:
    """`from ._feed import open_feed` is one house; `from ._client import _Reader` is a break-in."""
    wrong = [
        f"line {node.lineno}: {alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("trionats"))
        for alias in node.names
        if is_private(alias.name) and not is_submodule(f"{absolute(module, node)}.{alias.name}")
    ]
    assert not wrong


@each_module
def test_modules_and_functions_stay_small(module: Module) -> None:
    lines = module.source.count("\n")
    assert lines <= MODULE_LINES or module.name in LARGE, f"{lines} lines"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES or f"{module.name}:{node.name}" in LARGE, f"{node.name}: {length} lines"


@each_module
def test_every_module_says_what_it_is(module: Module) -> None:
    text = ast.get_docstring(module.tree)
    assert text
    assert text.splitlines()[0].endswith(".")


@each_module
def test_cancelled_has_two_ls(module: Module) -> None:
    assert "cance" + "led" not in module.source.lower()


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def private_attributes(module: Module) -> set[str]:
    """Return the underscore names that the module itself gives to its classes and their instances."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for below in ast.walk(target):
                    if isinstance(below, ast.Name):
                        names.add(below.id)
                    elif isinstance(below, ast.Attribute):
                        names.add(below.attr)
    return {name for name in names if is_private(name)}


def test_top_level_of_the_project() -> None:
    """Five names, dot files, and perhaps what we found out about others' software: nothing else that git knows."""
    root = PACKAGE.parent
    given = {"pyproject.toml", "trionats", "tests", "docs", "README.md"}
    besides = {"build", "dist", "findings"}
    there = {
        path.name for path in root.iterdir() if not path.name.startswith((".", "__")) and path.suffix != ".egg-info"
    }
    assert there - besides == given
