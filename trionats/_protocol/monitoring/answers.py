"""What servers answer, and what is still missing of it: an error of a server's is one, and pages are put together.

Strategy of pages
    A server lists 1,024 connections, or accounts, and says how many there are; the next page is asked of the same server, beginning
    behind as many. What comes and goes meanwhile shifts the rest, so pages overlap by one entry (design 74).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

from trionats import errors, monitoring
from trionats._protocol.jetstream.listing import Pages
from trionats._told.reading import read

if TYPE_CHECKING:
    from trionats._protocol.monitoring.requests import Kind
    from trionats._protocol.parser import Message

__all__ = ["PAGE", "Paging", "active_servers", "paging_of", "read_answer", "read_id"]

A = TypeVar("A", bound=monitoring.Answer)

#: How many entries a server lists at once.
PAGE: Final = 1024


def read_answer(kind: Kind, answer: Callable[..., A], message: Message) -> A | errors.MonitoringError:
    """Read what a server says.

    Args:
        kind: What it was asked.
        answer: The class of its answer.
        message: What it said.

    Returns:
        Its answer, or what it says instead.

    Raises:
        ValueError: It is neither.
    """
    said = json.loads(message.data)
    if not isinstance(said, dict):
        raise ValueError(f"an answer to {kind} is an object")
    server = read(monitoring.ServerInfo, said.get("server") or {}, "server")
    if isinstance(error := said.get("error"), dict):
        return _failure(kind, server, error)
    return read(answer, said.get("data"), "data", server=server)


def _failure(kind: Kind, server: monitoring.ServerInfo, said: Mapping[str, Any]) -> errors.MonitoringError:
    code, description = said.get("code"), str(said.get("description", ""))
    return errors.explained(
        errors.MonitoringError,
        f"{kind} of server {server.name!r}: {description} ({code})",
        request=kind,
        server=server.name,
        server_id=server.id,
        code=code if isinstance(code, int) else None,
        description=description,
    )


def active_servers(message: Message) -> int | None:
    """Say how many servers there are, itself included, by what one of them knows; None where it does not say.

    Args:
        message: Its STATSZ.

    Raises:
        ValueError: It is none.
    """
    said = json.loads(message.data)
    # It stands in an envelope of its own.
    stats = said.get("statsz") if isinstance(said, dict) else None
    if not isinstance(stats, dict):
        raise ValueError("an answer to STATSZ has statsz")
    count = stats.get("active_servers")
    return count if isinstance(count, int) and count > 0 else None


def read_id(message: Message) -> tuple[str, str]:
    """Read the name of a server, and its id.

    Args:
        message: Its IDZ.

    Raises:
        ValueError: It is none.
    """
    server = read(monitoring.ServerInfo, json.loads(message.data), "server")
    return server.name, server.id


@final
class Paging(Generic[A]):
    """The list of one server, of which the first page is there.

    Args:
        first: The answer with the first page.
        field: Where in it the entries are.
        key: What tells one of them from the others.
        counted: The field that says how many entries are listed; empty for none.
        limit: How many entries are enough; None for all.
    """

    def __init__(self, first: A, field: str, key: str, counted: str, limit: int | None) -> None:
        self._first = first
        self._field, self._key, self._counted = field, key, counted
        self._limit = limit
        self._pages = Pages()
        self._entries: dict[object, object] = {}
        self.take(first)

    def take(self, answer: A) -> None:
        """Take a page."""
        entries = getattr(answer, self._field)
        named = {getattr(entry, self._key): entry for entry in entries}
        self._entries.update(named)
        self._pages.take([str(name) for name in named], getattr(answer, "total", 0))

    @property
    def offset(self) -> int | None:
        """Where the next page begins; None where that was all."""
        enough = self._limit is not None and len(self._entries) >= self._limit
        return None if enough or self._pages.ended else self._pages.offset

    def whole(self) -> A:
        """Give the first answer with all entries in it."""
        entries = tuple(self._entries.values())[: self._limit]
        changes: dict[str, Any] = {self._field: entries}
        if self._counted:
            changes[self._counted] = len(entries)
        return dataclasses.replace(self._first, **changes)


def paging_of(answer: A, limit: int | None) -> Paging[A] | None:
    """Give the list that an answer begins; None for an answer that is no list.

    Args:
        answer: The answer.
        limit: How many entries are enough; None for all.
    """
    if isinstance(answer, monitoring.Connz):
        return Paging(answer, "connections", "cid", "num_connections", limit)
    if isinstance(answer, monitoring.Jsz) and answer.account_details:
        return Paging(answer, "account_details", "name", "", limit)
    return None
