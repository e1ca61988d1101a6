"""`python -m tests.mutants trionats/_protocol`: whether the tests notice when a single line of the source is another.

Lines are drawn and changed one at a time (a comparison, `and` for `or`, a number, a sign, a result, a call left out), and the
tests that reach such a line run, the lightest first, until one fails. Who reaches what is found by one run under coverage,
which takes some minutes: `--map FILE` keeps it, and makes it anew when a source or a test is newer. All of it happens in
copies of the tree. A mutant that survives is a line to look at: a test is missing, or the change makes no difference.

The module is also the plugin that its own runs of pytest use.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import copy
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import coverage
import pytest

ROOT: Final = Path(__file__).parent.parent
SUITE: Final = ("tests/protocol", "tests/floor", "tests/test_promise.py")
LIVE: Final = ("tests/live", "tests/test_promise.py")
AT_ONCE: Final = 2
#: Names the file that says which tests run, in which order.
CHOSEN: Final = "TRIONATS_CHOSEN_TESTS"

# -- what is changed ---------------------------------------------------------------------------------------------------------

PAIRS: Final[list[tuple[type[ast.AST], type[ast.AST]]]] = [
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.And, ast.Or),
    (ast.Add, ast.Sub),
    (ast.Mult, ast.FloorDiv),
]
OPPOSITES: Final = {**dict(PAIRS), **{second: first for first, second in PAIRS}}


class Mutant(NamedTuple):
    """One line of a module, and what stands there instead."""

    path: str
    line: int
    before: str
    after: str


def mutants(path: str, text: str) -> Iterator[Mutant]:
    """Give all mutants of a module."""
    lines = text.splitlines()
    for node in _what_runs(ast.parse(text)):
        line = getattr(node, "lineno", None)
        if line is not None and line == node.end_lineno and (other := _change(node)):
            raw = lines[line - 1].encode()
            after = (raw[: node.col_offset] + other.encode() + raw[node.end_col_offset :]).decode()
            yield Mutant(path, line, lines[line - 1], after)


def _what_runs(node: ast.AST) -> Iterator[Any]:
    """Leave out annotations, decorators, what only type checkers read, and f-strings, whose parts Python 3.11 cannot place."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        return
    yield node
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _what_runs(child)


def _change(node: ast.AST) -> str:
    """Say what may stand in place of a piece of source; nothing if it stays."""
    match node:
        case ast.Compare(ops=[operator]) | ast.BoolOp(operator) | ast.BinOp(op=operator) | ast.AugAssign(op=operator):
            if type(operator) not in OPPOSITES:
                return ""
            twin: Any = copy.deepcopy(node)
            other: Any = OPPOSITES[type(operator)]()
            if isinstance(twin, ast.Compare):
                twin.ops = [other]
            else:
                twin.op = other
            return ast.unparse(twin) if isinstance(node, ast.AugAssign) else f"({ast.unparse(twin)})"
        case ast.UnaryOp(ast.Not(), operand):
            return f"({ast.unparse(operand)})"
        case ast.Constant(bool() as value):
            return str(not value)
        case ast.Constant(int() | float() as value):
            return str(value + 1)
        case ast.Return(ast.AST() as value) if not isinstance(value, ast.Constant):
            return "return None"
        case ast.Expr(ast.Call() | ast.Await()) | ast.Raise():
            return "pass"
        case ast.Break() | ast.Continue():
            return "continue" if isinstance(node, ast.Break) else "break"
    return ""


def draw(source: Path, count: int, seed: int) -> list[Mutant]:
    """Draw so many lines of a folder or a file, and one mutant of each."""
    found: dict[tuple[str, int], list[Mutant]] = defaultdict(list)
    for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
        for mutant in mutants(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")):
            found[mutant.path, mutant.line].append(mutant)
    rng = random.Random(seed)
    return [rng.choice(found[place]) for place in sorted(rng.sample(sorted(found), min(count, len(found))))]


# -- who reaches it ----------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tell coverage which test runs: what runs in the client's own tasks is the test's, too."""
    if (measuring := coverage.Coverage.current()) is not None:
        measuring.switch_context(item.nodeid)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that were chosen, in their order."""
    if CHOSEN in os.environ:
        order = {name: place for place, name in enumerate(json.loads(Path(os.environ[CHOSEN]).read_text("utf-8")))}
        items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])


class Map:
    """Which tests reach a line.

    Args:
        file: Where the figures of coverage are kept.
        tree: A copy of the tree, in which they are made if they are not there or too old.
    """

    def __init__(self, file: Path, tree: Path) -> None:
        sources = [path for folder in ("trionats", "tests") for path in (ROOT / folder).rglob("*.py")]
        if not file.exists() or file.stat().st_mtime < max(path.stat().st_mtime for path in sources):
            print("running all tests under coverage", flush=True)
            file.unlink(missing_ok=True)
            (tree / "rc").write_text("[run]\nsource = trionats\nrelative_files = true\n", encoding="utf-8")
            run = ["coverage", "run", "--rcfile=rc", f"--data-file={file.resolve()}", "-m"]
            done = _in_tree(tree, [*run, *_pytest(SUITE, "not live")], 3600)
            if done.returncode:
                file.unlink(missing_ok=True)
                raise SystemExit(f"the tests fail without a mutant:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        self._data = coverage.CoverageData(str(file))
        self._data.read()
        self._weights: dict[str, int] = defaultdict(int)
        for path in self._data.measured_files():
            for names in self._data.contexts_by_lineno(path).values():
                for name in names:
                    self._weights[name] += 1

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Those that reach a line, the lightest first; of a line that runs at import, those that reach its module."""
        lines = self._data.contexts_by_lineno(mutant.path)
        found = set(lines.get(mutant.line, ()))
        if "" in found:
            found = {name for names in lines.values() for name in names}
        return sorted(found - {""}, key=lambda name: (self._weights[name], name))


# -- whether it is noticed ---------------------------------------------------------------------------------------------------


def _pytest(where: tuple[str, ...], marks: str) -> list[str]:
    options = ["-x", "-q", "--tb=no", "-p", "tests.mutants", "-p", "no:cacheprovider", "-m", marks]
    itself = "--ignore=tests/floor/test_mutants.py"
    return ["pytest", *options, itself, *(name for name in where if (ROOT / name).exists())]


def _in_tree(tree: Path, module: list[str], seconds: float, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python in a copy of the tree."""
    own = {**os.environ, "PYTHONPATH": str(tree), "TRIONATS_SEED": "1", **more}
    command = [sys.executable, "-m", *module]
    return subprocess.run(command, cwd=tree, env=own, capture_output=True, text=True, timeout=seconds, check=False)


def killer(mutant: Mutant, names: list[str], tree: Path, seconds: float, *, live: bool) -> str:
    """Say what notices a mutant; nothing if nothing does."""
    path = tree / mutant.path
    original = path.read_text(encoding="utf-8")
    lines = original.splitlines(keepends=True)
    lines[mutant.line - 1] = f"{mutant.after}\n"
    chosen = tree / "chosen.json"
    chosen.write_text(json.dumps(names), encoding="utf-8")
    where = tuple(sorted({name.partition("::")[0] for name in names}))
    runs = [(where, "not live", {CHOSEN: str(chosen)})] if names else []
    runs += [(LIVE, "live", {})] if live else []
    try:
        _write(path, "".join(lines))
        for where, marks, environment in runs:
            done = _in_tree(tree, _pytest(where, marks), seconds, **environment)
            if done.returncode not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
                failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
                return failed[1] if failed else f"pytest, which ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        return f"the time: not done within {seconds:g} s"
    finally:
        _write(path, original)
    return ""


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    # As long as before, and of the same second, it would be taken for what was compiled.
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()


def main() -> int:
    """Draw mutants, try them, and say what became of each."""
    parser = argparse.ArgumentParser("python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="a folder or a file under trionats")
    parser.add_argument("--count", type=int, default=20, help="how many lines are drawn (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="repeats a draw")
    parser.add_argument("--map", type=Path, help="keeps which tests reach which line")
    parser.add_argument("--seconds", type=float, default=120, help="how long the tests may take for each (%(default)s)")
    parser.add_argument("--live", action="store_true", help="try those that survive with a real server, too")
    wishes = parser.parse_args()
    drawn = draw((ROOT / wishes.source).resolve(), wishes.count, wishes.seed)
    print(f"{len(drawn)} mutants of {wishes.source}, --seed {wishes.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="trionats-mutants-") as folder:
        trees = [Path(folder) / str(number) for number in range(AT_ONCE)]
        for tree in trees:
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "_build"))
        reached = Map(wishes.map or Path(folder) / "map", trees[0])

        def attempt(mutant: Mutant) -> bool:
            names = reached.tests_of(mutant)
            tree = trees.pop()
            by = killer(mutant, names, tree, wishes.seconds, live=wishes.live)
            trees.append(tree)
            how = f"killed by {by}" if by else f"SURVIVED {len(names)} tests, or makes no difference"
            print(
                f"{mutant.path}:{mutant.line}: {mutant.before.strip()}  ->  {mutant.after.strip()}\n    {how}",
                flush=True,
            )
            return bool(by)

        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            killed = sum(pool.map(attempt, drawn))
    print(f"{killed} of {len(drawn)} killed")
    return int(killed < len(drawn))


if __name__ == "__main__":
    sys.exit(main())
