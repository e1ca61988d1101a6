"""The options of `open_client`: one place says of each what it is; what is wrong is refused before anything is dialled."""

from __future__ import annotations

import inspect
import random
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import trionats
from trionats import ClientOptions, open_client
from trionats._connection.options import Options

ROOMS = Path(trionats.__file__).parent
NAMES = [option.name for option in fields(Options)]


def test_what_callers_write_is_what_options_hold() -> None:
    """With their types, but for None where that is the default."""
    written, held = get_type_hints(ClientOptions), get_type_hints(Options)
    assert list(written) == list(held) == NAMES
    for option in fields(Options):
        wanted: Any = written[option.name]
        assert held[option.name] == (wanted | None if option.default is None else wanted), option.name


@pytest.mark.parametrize("name", NAMES)
def test_each_option_has_a_default_a_meaning_and_an_entry(name: str) -> None:
    (option,) = (option for option in fields(Options) if option.name == name)
    assert option.default is not MISSING or option.default_factory is not MISSING
    meaning = option.metadata["doc"]
    assert re.fullmatch(r"[A-Z].*\.", meaning)
    entries = (inspect.getdoc(open_client) or "").partition("Args:\n")[2].partition("\n\n")[0]
    assert f"{name}: {meaning}" in " ".join(entries.split())


def test_the_documentation_of_options_has_its_lines() -> None:
    text = inspect.getdoc(open_client) or ""
    assert "**options" not in text
    assert max(map(len, text.splitlines())) <= 120
    entries = re.findall(r"^    (\w+): ", text.partition("Args:\n")[2].partition("\n\n")[0], re.MULTILINE)
    assert entries == ["nursery", "servers", *NAMES]


def test_each_option_is_used_where_the_comment_above_it_says() -> None:
    rooms: list[str] = []
    used: set[tuple[str, str]] = set()
    for line in inspect.getsource(Options).partition("def ")[0].splitlines():
        if line.startswith("    # "):
            rooms = re.findall(r"`([\w.]+)`", line)
        elif found := re.match(r"    (\w+): ", line):
            option = "(tls_wanted|tls)" if found[1] == "tls" else found[1]
            uses = re.compile(rf"(?:options|own)(?:\.{option}\b|\.get\(\"{option}\"\))")
            users = {room for room in rooms if uses.search(source(room))}
            assert users, f"{found[1]} is used by none of {rooms}"
            used |= {(line, room) for room in users}
    assert {room for _, room in used} >= set(rooms)


def source(room: str) -> str:
    path = room.replace(".", "/") if "." in room else f"_connection/{room}"
    return (ROOMS / f"{path}.py").read_text(encoding="utf-8")


def test_none_is_no_choice() -> None:
    none: Any = {option.name: None for option in fields(Options) if option.default is None or option.name == "rng"}
    assert repr(Options.of(none)) == repr(Options()) == "Options()"


def test_what_is_shown_of_options_is_numbers_and_no_secret() -> None:
    secret: Any = "hunter2-7f3a"
    given = Options.of(
        {
            "name": secret,
            "password": lambda: secret,
            "tls_hostname": secret,
            "ws_connection_headers": {"Authorization": secret},
            "verbose": secret,
            "ping_interval": 3,
            "no_echo": True,
            "rng": random.Random(1),
        }
    )
    shown = "name=..., password=..., tls_hostname=..., ws_connection_headers=..., verbose=..., no_echo=True, ping_interval=3"
    assert repr(given) == f"Options({shown})"
