"""The server that says something."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from trionats._told.reading import Told, wire


@final
@dataclass(frozen=True, kw_only=True)
class ServerInfo(Told):
    """Which server says something, and when by its clock."""

    name: str = ""
    host: str = ""
    id: str = ""
    cluster: str = ""
    domain: str = ""
    version: str = wire("ver", "")
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    feature_flags: Mapping[str, bool] = field(default_factory=dict)
    jetstream: bool = False
    flags: int = 0
    seq: int = 0
    time: datetime.datetime | None = None
