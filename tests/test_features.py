"""The table of features: each row names a public name, and a test that exists and proves it."""

from __future__ import annotations

import ast
import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TABLES = sorted((ROOT / "docs" / "features").glob("*.csv"))
HEADER = ["section", "feature", "name", "test"]


class Row(NamedTuple):
    """One feature."""

    section: str
    feature: str
    name: str
    test: str


def rows(table: Path) -> list[Row]:
    with table.open(newline="", encoding="utf-8") as lines:
        header, *found = csv.reader(lines)
    assert header == HEADER
    return [Row(*row) for row in found]


@cache
def names_in(path: str) -> frozenset[str]:
    """The tests of a file, without importing it: `name`, or `Class::name`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        within = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        functions = [each for each in within if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
        found |= {prefix + each.name for each in functions if each.name.startswith("test_")}
    return frozenset(found)


@pytest.mark.parametrize("table", TABLES, ids=[table.stem for table in TABLES])
def test_every_row_is_whole_and_names_a_test_that_exists(table: Path) -> None:
    for row in rows(table):
        assert all(field.strip() for field in row), row
        path, _, test = row.test.partition("::")
        assert (ROOT / path).is_file(), row
        assert test.partition("[")[0] in names_in(path), row


def test_no_feature_stands_twice() -> None:
    features = [(row.section, row.feature) for table in TABLES for row in rows(table)]
    assert len(features) == len(set(features))


def test_the_page_shows_every_table() -> None:
    page = (ROOT / "docs" / "features.rst").read_text(encoding="utf-8")
    assert not [table.name for table in TABLES if f"features/{table.name}" not in page]
