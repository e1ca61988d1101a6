"""Which version a server is of, for what no API level tells (`_protocol.jetstream.levels`)."""

from __future__ import annotations

import re
from typing import Final

from trionats import errors

__all__ = ["check_version"]

_numbers: Final = re.compile(r"v?(\d+)\.(\d+)").match


def check_version(feature: str, least: tuple[int, int], version: str) -> None:
    """Refuse what a server is too old for, before anything is sent to it.

    Args:
        feature: What is wanted, for the text.
        least: The first version that has it: major and minor.
        version: The server's, as its INFO says. What cannot be read proves nothing: a server of one's own making.

    Raises:
        nats.errors.Error: It is too old.
    """
    found = _numbers(version)
    if found is not None and (int(found[1]), int(found[2])) < least:
        text = f"{feature} needs a server of {least[0]}.{least[1]} or later; this one is of {version}"
        raise errors.explained(errors.Error, text)
