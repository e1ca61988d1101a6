"""The mutants: which there are of a line, that a draw repeats itself, and that a toy's tests find what they can find."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mutants

SOURCE = '''"""Text."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    SEEN = 1 < 2


def add(a: int, b: int = 5) -> "int | None":
    """More text."""
    if not a and b >= 1:
        print("ä", a + b)
    for _ in f"{a + b}":
        break
    a += 1
    return a
'''


def test_what_may_stand_in_place_of_a_line() -> None:
    found = [(mutant.line, mutant.after.strip()) for mutant in mutants.mutants("x.py", SOURCE)]
    assert found == [
        (8, 'def add(a: int, b: int = 6) -> "int | None":'),
        (10, "if (not a or b >= 1):"),
        (10, "if (a) and b >= 1:"),
        (10, "if not a and (b > 1):"),
        (10, "if not a and b >= 2:"),
        (11, "pass"),
        (11, 'print("ä", (a - b))'),
        (13, "continue"),
        (14, "a -= 1"),
        (14, "a += 2"),
        (15, "return None"),
    ]


@pytest.mark.parametrize("source", ["trionats/_feeds", "trionats/_feeds/feed.py"])
def test_a_draw_repeats_itself_and_changes_each_line_once(source: str) -> None:
    drawn = mutants.draw(mutants.ROOT / source, 20, seed=1)
    assert drawn == mutants.draw(mutants.ROOT / source, 20, seed=1)
    assert drawn != mutants.draw(mutants.ROOT / source, 20, seed=2)
    assert len({(mutant.path, mutant.line) for mutant in drawn}) == 20
    for mutant in drawn:
        lines = (mutants.ROOT / mutant.path).read_text().splitlines()
        assert lines[mutant.line - 1] == mutant.before != mutant.after
        lines[mutant.line - 1] = mutant.after
        compile("\n".join(lines), mutant.path, "exec")


TOY = """
LIMIT = 3


def small(number: int) -> bool:
    return number < LIMIT


def unseen(number: int) -> int:
    return number + 1
"""
TEST = """
from trionats.toy import small, unseen


def test_limit() -> None:
    assert small(2)
    assert not small(3)


def test_unseen() -> None:
    unseen(1)
"""


def test_what_the_tests_of_a_toy_find(tmp_path: Path) -> None:
    for name, text in {"trionats/__init__.py": "", "trionats/toy.py": TOY, "tests/floor/test_toy.py": TEST}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = ["--import-mode=importlib"]\nmarkers = ["live"]\n'
    )
    shutil.copy(mutants.__file__, tmp_path / "tests" / "mutants.py")
    command = [sys.executable, "-m", "tests.mutants", "trionats/toy.py", "--seed", "4", "--map", "map"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    first, making, *found, count = done.stdout.splitlines()
    assert (first, making) == ("3 mutants of trionats/toy.py, --seed 4", "running all tests under coverage")
    assert count == "2 of 3 killed", done.stdout
    assert sorted(zip(found[::2], found[1::2], strict=True)) == [
        (f"trionats/toy.py:{line}: {before}  ->  {after}", f"    {how}")
        for line, before, after, how in (
            (10, "return number + 1", "return None", "SURVIVED 1 tests, or makes no difference"),
            (2, "LIMIT = 3", "LIMIT = 4", "killed by tests/floor/test_toy.py::test_limit"),
            (6, "return number < LIMIT", "return (number <= LIMIT)", "killed by tests/floor/test_toy.py::test_limit"),
        )
    ]
    assert (tmp_path / "trionats/toy.py").read_text() == TOY
    assert (tmp_path / "map").exists()
