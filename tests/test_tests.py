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
#: Calls that fail where something is not as it should be.
ASSERTING: Final = re.compile(r"^(raises|RaisesGroup|RaisesExc|fail|fail_after|assert_\w+|check\w*|expect|play|takes)$")
#: nats-py's, where it has nothing public for it.
THEIRS: Final = frozenset({"_close", "_err", "_error_cb", "_nc", "_status", "_stream", "_transport"})
CODE: Final = re.compile(r"^test_[a-z]\d+_|_[a-z]\d{1,3}_|^\s*[A-Z]\d{1,3}\b[:,]")
SAYS_NOTHING: Final = re.compile(r"_(review|misc|regressions?|bugs?|issues?|more|other|utils?|helpers?|common)\d*\.py$")

#: What a file may have of its own, though `tests/worlds.py` has something of that name.
COMMON: Final = frozenset({"elsewhere", "open_bucket", "put", "run"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def nodes(file: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))))


@cache
def functions(file: str) -> dict[str, Function]:
    return {node.name: node for node in nodes(file) if isinstance(node, Function)}


def cases(file: str) -> list[Function]:
    return [node for name, node in functions(file).items() if "/test_" in file and name.startswith("test_")]


@cache
def imported(file: str) -> dict[str, str]:
    """What a file takes from others of the tests: the name, and the file."""
    taken = [node for node in nodes(file) if isinstance(node, ast.ImportFrom)]
    return {
        one.asname or one.name: f"{(node.module or '').replace('.', '/')}.py" for node in taken for one in node.names
    }


@cache
def asserts(file: str, name: str) -> bool:
    """Whether a function can fail by what it sees: itself, or a helper from the tests that it calls."""
    for part in ast.walk(functions(file)[name]) if file in FILES and name in functions(file) else ():
        if isinstance(part, ast.Call) and isinstance(part.func, (ast.Attribute, ast.Name)):
            called = part.func.attr if isinstance(part.func, ast.Attribute) else part.func.id
            home = file if called in functions(file) else imported(file).get(called, "")
            if ASSERTING.match(called) or (
                isinstance(part.func, ast.Name) and called != name and asserts(home, called)
            ):
                return True
        elif isinstance(part, ast.Assert):
            return True
    return False


def is_self(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def attributes(file: str) -> Iterator[ast.Attribute]:
    return (node for node in nodes(file) if isinstance(node, ast.Attribute))


@cache
def ours() -> frozenset[str]:
    """The private attributes of our classes, in the package and in the tests."""
    found = set[str]()
    for file in [*FILES, *(path.relative_to(ROOT).as_posix() for path in (ROOT / "trionats").rglob("*.py"))]:
        found |= {node.attr for node in attributes(file) if isinstance(node.ctx, ast.Store) and is_self(node.value)}
        for node in nodes(file):
            if isinstance(node, ast.ClassDef):
                found |= {part.name for part in node.body if isinstance(part, Function)}
    return frozenset(name for name in found if name.startswith("_") and not name.endswith("__")) - THEIRS


def looks_inside(file: str) -> list[str]:
    """Private attributes of an object that is not the class's own."""
    if file == PEEPHOLE or file.startswith("tests/protocol/"):
        return []
    return [node.attr for node in attributes(file) if node.attr in ours() and not is_self(node.value)]


def defined(file: str) -> set[str]:
    children = ast.iter_child_nodes(nodes(file)[0])
    return {node.name for node in children if isinstance(node, (Function, ast.ClassDef))}


def named_by_a_code(test: Function) -> bool:
    return bool(CODE.search(test.name) or CODE.search(ast.get_docstring(test) or ""))


#: What is complained of, and where: tests that assert nothing; who looks inside; what asks a client for its connection, past
#: `seam`; tests that are named, or explained, by a number in a list that is elsewhere; files whose names do not say what is
#: tested there; helpers of the tests with a client that are there already.
RULES: Final[dict[str, Callable[[str], list[str]]]] = {
    "without_an_assertion": lambda file: [test.name for test in cases(file) if not asserts(file, test.name)],
    "looks_inside": looks_inside,
    "goes_to_the_seam": lambda file: (
        [node.attr for node in attributes(file) if file != PEEPHOLE and node.attr == "__messaging__"]
    ),
    "named_by_a_code": lambda file: [test.name for test in cases(file) if named_by_a_code(test)],
    "named_for_nothing": lambda file: [file] if SAYS_NOTHING.search(file) else [],
    "has_what_the_worlds_have": lambda file: (
        sorted(defined(file) & defined(PEEPHOLE) - COMMON) if file.startswith(("tests/floor/", "tests/live/")) else []
    ),
}
EXCEPTIONS: Final[dict[str, set[str]]] = {
    "has_what_the_worlds_have": {"tests/floor/test_bridge.py", "tests/live/test_bridge.py"},  # of nats-py's client
}


@pytest.mark.parametrize("rule", RULES)
def test_each_file_keeps(rule: str) -> None:
    complaints = {file: found for file in FILES if (found := sorted(set(RULES[rule](file))))}
    let_pass = EXCEPTIONS.get(rule, set())
    assert {file: found for file, found in complaints.items() if file not in let_pass} == {}
    assert let_pass - complaints.keys() == set(), "nothing is to be let pass there"


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
    file = "tests/floor/test_review.py"
    monkeypatch.setitem(globals(), "nodes", {file: list(ast.walk(ast.parse(SAMPLE))), PEEPHOLE: nodes(PEEPHOLE)}.get)
    monkeypatch.setitem(globals(), "ours", lambda: {"_engine"})
    monkeypatch.setitem(globals(), "FILES", [file])
    functions.cache_clear()
    asserts.cache_clear()
    assert {name: rule(file) for name, rule in RULES.items()} == {
        "without_an_assertion": ["test_a1_by_a_code", "test_d"],
        "looks_inside": ["_engine"],
        "goes_to_the_seam": ["__messaging__"],
        "named_by_a_code": ["test_a1_by_a_code"],
        "named_for_nothing": [file],
        "has_what_the_worlds_have": ["lose"],
    }
