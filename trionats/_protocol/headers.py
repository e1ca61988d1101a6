"""The NATS/1.0 header block.

Strategy. Writing is strict: a name or value that could end its line never reaches the wire. Reading is lenient and
total: the server delivers verbatim whatever a peer sent as its header block, so a malformed one must cost neither the
message nor the connection. What can be read is read, and the first thing that was wrong is told in `Headers.problem`.

ADR-4 rules: names keep their case and may repeat; blanks around a value do not belong to it; a status may follow the
version, with or without a blank, and a description may follow the status.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from multidict import MultiDict

from trionats import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Headers", "encode", "parse", "texts"]

_VERSION = "NATS/1.0"
_is_name = re.compile(r"[!-9;-~]++").fullmatch
_has_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_read_status = re.compile(r"[ \t]*([0-9]{3})(?![0-9])[ \t]*(.*)").fullmatch


class Headers(NamedTuple):
    """What a header block says.

    Attributes:
        fields: The headers, in order, repeated names kept. Bytes that are not UTF-8 are surrogate escapes.
        status: The server's three-digit status.
        description: The text behind the status, or "".
        problem: What was wrong with the block first, or None.
    """

    fields: MultiDict[str]
    status: int | None
    description: str
    problem: str | None


def encode(headers: Mapping[str, str | Sequence[str]]) -> bytes:
    """Write a header block.

    Args:
        headers: Names and values; a list of values, or a multidict, repeats the name. Blanks around a value are sent,
            but receivers do not take them as part of it (ADR-4).

    Returns:
        The block with the version line and the empty line at its end.

    Raises:
        BadHeaderError: A name is not printable ASCII without space and colon, or a value is not a str, or has a line
            end, a control character or a lone surrogate.
    """
    lines = [_VERSION]
    for name, value in headers.items():
        if not isinstance(name, str) or _is_name(name) is None:
            raise _bad(name, "a name is printable ASCII without spaces and colons")
        if isinstance(value, str):
            lines.append(_line(name, value))
        elif (values := texts(value)) is not None:
            lines.extend([_line(name, one) for one in values])
        else:
            raise _bad(name, f"a value must be str, not {type(value).__name__}")
    lines.append("\r\n")
    try:
        return "\r\n".join(lines).encode()
    except UnicodeEncodeError as error:
        # The name stands between the line end before the surrogate and the colon behind it.
        before = error.object[: error.start].rpartition("\n")[2]
    # Not raised from there: what could not be encoded is the whole block.
    raise _bad(before.partition(":")[0], "a value is not valid Unicode text")


def texts(value: object) -> Sequence[object] | None:
    """Read the value of one header as the texts that it stands for.

    Text stands for itself, and a sequence for its items. Everything else that can be gone through would lose something:
    a mapping its values, a set its order, an iterator what it gave once.

    Args:
        value: What a program gave.

    Returns:
        The items, which may be anything yet; None where the value is neither text nor a sequence.
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return value
    return None


def parse(block: bytes) -> Headers:
    """Read a header block, well formed or not.

    Args:
        block: The bytes of the block, as delivered.

    Returns:
        All that could be read. It never raises.
    """
    # Never str.splitlines: it also takes U+0085, U+2028 and others for line ends.
    lines = [line.removesuffix("\r") for line in block.decode("utf-8", "surrogateescape").split("\n")]
    status, description, problem = None, "", None
    if lines[0].startswith(_VERSION):
        status, description, problem = _status(lines.pop(0)[len(_VERSION) :])
    else:
        problem = "there is no version line"
    # What stands behind the first empty line is read by no client.
    end = lines.index("") if "" in lines else len(lines)
    if lines[end:] != ["", ""]:
        problem = problem or "there is no empty line at its end"
    fields: MultiDict[str] = MultiDict()
    for line in lines[:end]:
        name, colon, value = line.partition(":")
        name = name.rstrip(" \t")
        if colon and name and name[0] not in " \t":
            fields.add(name, value.strip(" \t"))
        else:
            problem = problem or "a line is not 'name: value'"
    return Headers(fields, status, description, problem)


def _status(rest: str) -> tuple[int | None, str, str | None]:
    if not rest.strip(" \t"):
        return None, "", None
    found = _read_status(rest)
    if found is None:
        return None, rest.strip(" \t"), "the status is not a number of three digits"
    return int(found[1]), found[2].rstrip(" \t"), None


def _line(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _bad(name, f"a value must be str, not {type(value).__name__}")
    if not str.isprintable(value) and _has_control(value):
        raise _bad(name, "a value has no line ends and no control characters")
    # Joined, not formatted: a subclass, an enumeration's member for instance, may say something else of itself.
    return ": ".join((name, value))


def _bad(name: object, complaint: str) -> errors.BadHeaderError:
    shown = repr(name)
    if len(shown) > 120:
        shown = shown[:120] + "..."
    return errors.explained(errors.BadHeaderError, f"header {shown}: {complaint}", key=name)
