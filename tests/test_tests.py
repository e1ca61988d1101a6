"""The rules of the tests' own house, as data: read from the syntax trees, nothing is imported.

A rule finds complaints in a file. `EXCEPTIONS` names the files that are let pass, and one that need not be is a complaint, too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
FILES: Final = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))
#: What only builders of feeds use of a client, and the looks into what no program sees, have one home.
PEEPHOLE: Final = "tests/worlds.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


@cache
def functions(file: str) -> dict[str, Function]:
    """The functions and methods of a file, by their names."""
    return {node.name: node for node in ast.walk(tree(file)) if isinstance(node, Function)}


def cases(file: str) -> Iterator[Function]:
    """The tests of a file."""
    if Path(file).name.startswith("test_"):
        for name, node in functions(file).items():
            if name.startswith("test_"):
                yield node


# -- every test asserts --------------------------------------------------------------------------------------------------------

#: Calls that fail where something is not as it should be.
ASSERTING: Final = re.compile(r"^(raises|RaisesGroup|RaisesExc|fail|fail_after|assert_\w+|check\w*|expect|takes)$")


def imported(file: str) -> dict[str, str]:
    """What a file takes from others of the tests: the name, and the file."""
    found = {}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{(node.module or '').replace('.', '/')}.py"
    return found


@cache
def asserts(file: str, name: str) -> bool:
    """Whether a function can fail by what it sees: itself, or a helper from the tests that it calls."""
    node = functions(file).get(name)
    for part in ast.walk(node) if node else ():
        if isinstance(part, ast.Assert):
            return True
        if isinstance(part, ast.Call):
            called = part.func.attr if isinstance(part.func, ast.Attribute) else getattr(part.func, "id", "")
            if ASSERTING.match(called):
                return True
            home = file if called in functions(file) else imported(file).get(called, "")
            if isinstance(part.func, ast.Name) and called != name and home in (file, *FILES) and asserts(home, called):
                return True
    return False


def without_an_assertion(file: str) -> Iterator[str]:
    """Tests that assert nothing."""
    for test in cases(file):
        if not asserts(file, test.name):
            yield test.name


# -- nobody looks inside -------------------------------------------------------------------------------------------------------


@cache
def ours() -> frozenset[str]:
    """The private attributes of our classes, in the package and in the tests."""
    found = set()
    for path in [*(ROOT / "trionats").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
                found.add(node.attr)
            elif isinstance(node, ast.ClassDef):
                found |= {part.name for part in node.body if isinstance(part, Function)}
    return frozenset(name for name in found if _is_private(name))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _is_self(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


#: nats-py's, where it has nothing public for it.
THEIRS: Final = frozenset({"_close", "_err", "_error_cb", "_nc", "_status", "_stream", "_transport"})


def looks_inside(file: str) -> Iterator[str]:
    """Private attributes of an object that is not the class's own."""
    if file == PEEPHOLE or file.startswith("tests/protocol/"):
        return
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Attribute) and node.attr in ours() - THEIRS and not _is_self(node.value):
            yield node.attr


def goes_to_the_seam(file: str) -> Iterator[str]:
    """What asks a client for its connection, past `seam`."""
    for node in ast.walk(tree(file)):
        if file != PEEPHOLE and isinstance(node, ast.Attribute) and node.attr == "__messaging__":
            yield node.attr


# -- names ---------------------------------------------------------------------------------------------------------------------

CODE: Final = re.compile(r"^test_[a-z]\d+_|_[a-z]\d{1,3}_|^\s*[A-Z]\d{1,3}\b[:,]")
SAYS_NOTHING: Final = re.compile(r"_(review|misc|regressions?|bugs?|issues?|more|other|utils?|helpers?|common)\d*\.py$")


def named_by_a_code(file: str) -> Iterator[str]:
    """Tests that are named, or explained, by a number in a list that is elsewhere."""
    for test in cases(file):
        if CODE.search(test.name) or CODE.search(ast.get_docstring(test) or ""):
            yield test.name


def named_for_nothing(file: str) -> Iterator[str]:
    """Files whose names do not say what is tested there."""
    if SAYS_NOTHING.search(file):
        yield file


#: Helpers that stand in `tests/worlds.py`, and once stood everywhere.
SHARED: Final = frozenset(
    {
        *(
            "Hosts",
            "Listener",
            "Receiver",
            "Turns",
            "arrived",
            "collect",
            "connected",
            "consume",
            "events_until",
            "lose",
        ),
        *(
            "meta_subject",
            "next_event",
            "nursery_elsewhere",
            "open_world",
            "payloads",
            "reconnected",
            "refusal",
            "regain",
        ),
        *("respond", "settled", "stuck", "subscribed", "takes", "until"),
    }
)


def has_what_the_worlds_have(file: str) -> Iterator[str]:
    """Helpers of the tests with a client that are there already."""
    if file.startswith(("tests/floor/", "tests/live/")):
        for node in tree(file).body:
            if isinstance(node, (Function, ast.ClassDef)) and node.name in SHARED:
                yield node.name


# -- the rules, and what is let pass ---------------------------------------------------------------------------------------------

RULES: Final[list[Callable[[str], Iterator[str]]]] = [
    without_an_assertion,
    looks_inside,
    goes_to_the_seam,
    named_by_a_code,
    named_for_nothing,
    has_what_the_worlds_have,
]
EXCEPTIONS: Final[dict[str, set[str]]] = {
    "without_an_assertion": {
        "tests/protocol/test_cli_context.py",
        "tests/protocol/test_credentials.py",
        "tests/protocol/test_fields.py",
        "tests/protocol/test_leader.py",
    },
    "named_by_a_code": {
        "tests/floor/test_dial_plan.py",
        "tests/floor/test_handshake.py",
        "tests/floor/test_migration.py",
        "tests/floor/test_objects.py",
        "tests/floor/test_purging.py",
        "tests/floor/test_reconnect.py",
        "tests/floor/test_session.py",
        "tests/live/test_auth.py",
        "tests/live/test_reconnect.py",
        "tests/live/test_tls.py",
    },
    "has_what_the_worlds_have": {
        "tests/floor/test_bridge.py",  # of nats-py's client
        "tests/live/test_bridge.py",  # of nats-py's client
    },
}


@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_each_file_keeps(rule: Callable[[str], Iterator[str]]) -> None:
    complaints = {file: found for file in FILES if (found := sorted(set(rule(file))))}
    let_pass = EXCEPTIONS.get(rule.__name__, set())
    assert {file: found for file, found in complaints.items() if file not in let_pass} == {}
    assert let_pass - complaints.keys() == set(), "nothing is to be let pass there"


def test_the_worlds_have_what_is_shared() -> None:
    assert {node.name for node in tree(PEEPHOLE).body if isinstance(node, (Function, ast.ClassDef))} | {
        "settled"
    } >= SHARED


SAMPLE = '''
def helper(x):
    assert x

async def test_a1_by_a_code():
    """C12: as in the list."""
    await nc._engine.flush()

def test_b():
    helper(1)

def test_c():
    with pytest.raises(ValueError):
        pass

def test_d():
    nc.__messaging__()

class Peer:
    def look(self):
        return self._engine

def lose():
    pass
'''


def test_what_the_rules_find(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = ast.parse(SAMPLE)
    monkeypatch.setitem(globals(), "tree", lambda _: sample)
    monkeypatch.setitem(globals(), "ours", lambda: {"_engine"})
    functions.cache_clear()
    asserts.cache_clear()
    found = {rule.__name__: list(rule("tests/floor/test_review.py")) for rule in RULES}
    functions.cache_clear()
    asserts.cache_clear()
    assert found == {
        "without_an_assertion": ["test_a1_by_a_code", "test_d"],
        "looks_inside": ["_engine"],
        "goes_to_the_seam": ["__messaging__"],
        "named_by_a_code": ["test_a1_by_a_code"],
        "named_for_nothing": ["tests/floor/test_review.py"],
        "has_what_the_worlds_have": ["lose"],
    }
