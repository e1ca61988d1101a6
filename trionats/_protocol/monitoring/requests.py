"""What servers are asked on ``$SYS.REQ``: the subjects, the options of each request, and what of them cannot be meant."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from trionats._protocol.fields import check_argument
from trionats._protocol.subjects import subscribe_subject

__all__ = [
    "ALL_SERVERS",
    "Kind",
    "Request",
    "Sort",
    "State",
    "check_server",
    "chosen",
    "filters",
    "is_server_id",
    "request_of",
]

Kind = Literal["ACCOUNTZ", "CONNZ", "GATEWAYZ", "HEALTHZ", "IDZ", "JSZ", "LEAFZ", "ROUTEZ", "STATSZ", "SUBSZ", "VARZ"]
State = Literal["open", "closed", "all"]
Sort = Literal[
    "cid", "start", "subs", "pending", "msgs_to", "msgs_from", "bytes_to", "bytes_from", "last", "idle", "uptime", "rtt",
    "stop", "reason",
]  # fmt: skip

#: In place of a server's id: all of them.
ALL_SERVERS: Final = "PING"
_TEXT: Final = str | None
_NUMBER: Final = int | None
#: What may be chosen of each, and the kind of it; and what the server calls it, where that is something else.
_OPTIONS: Final[Mapping[str, Mapping[str, object]]] = {
    "ACCOUNTZ": {"account": _TEXT},
    "CONNZ": {
        "account": _TEXT,
        "user": _TEXT,
        "cid": _NUMBER,
        "mqtt_client": _TEXT,
        "filter_subject": _TEXT,
        "state": State,
        "sort": Sort,
        "auth": bool,
        "subscriptions": bool,
        "subscriptions_detail": bool,
        "offset": _NUMBER,
        "limit": _NUMBER,
    },
    "GATEWAYZ": {"name": _TEXT, "accounts": bool, "account_name": _TEXT},
    "HEALTHZ": {
        "js_enabled_only": bool,
        "js_server_only": bool,
        "account": _TEXT,
        "stream": _TEXT,
        "consumer": _TEXT,
        "details": bool,
    },
    "JSZ": {
        "account": _TEXT,
        "accounts": bool,
        "streams": bool,
        "consumers": bool,
        "config": bool,
        "raft": bool,
        "leader_only": bool,
        "offset": _NUMBER,
        "limit": _NUMBER,
    },
    "LEAFZ": {"account": _TEXT, "subscriptions": bool},
    "ROUTEZ": {"subscriptions": bool, "subscriptions_detail": bool},
    "SUBSZ": {"account": _TEXT, "subscriptions": bool, "test": _TEXT, "offset": _NUMBER, "limit": _NUMBER},
    "VARZ": {},
}
_ON_THE_WIRE: Final[Mapping[tuple[str, str], str]] = {
    ("CONNZ", "account"): "acc",
    ("JSZ", "consumers"): "consumer",
    ("HEALTHZ", "js_enabled_only"): "js-enabled-only",
    ("HEALTHZ", "js_server_only"): "js-server-only",
}
_FILTERS: Final = {"cluster": _TEXT, "host": _TEXT, "domain": _TEXT, "tags": list[str]}
_STATES: Final[Mapping[object, int]] = {state: number for number, state in enumerate(get_args(State))}
_OF_CLOSED: Final = frozenset({"stop", "reason"})
#: What can be asked of an account by a subject of its own, with the same answer.
_BY_ACCOUNT: Final = frozenset({"CONNZ", "LEAFZ"})
_id: Final = re.compile(r"N[A-Z2-7]{55}").fullmatch
_token: Final = re.compile(r"[^\s.*>]+").fullmatch


class Request(NamedTuple):
    """What is published."""

    subject: str
    payload: bytes


def is_server_id(server: str) -> bool:
    """Say whether a text has the form of a server's id: what a server without a name is called, too."""
    return _id(server) is not None


def check_server(kind: Kind, server: object) -> None:
    """Refuse what is no name of a server, and no id.

    Args:
        kind: What is asked.
        server: What was given; None for all servers.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty.
    """
    _checked(kind.lower(), {"server": _TEXT}, {"server": server})


def filters(**given: object) -> dict[str, Any]:
    """Check which servers are to respond to what all are asked, and say so as they are told.

    Args:
        given: The name of their cluster, their host, their domain, and tags that they have to have.

    Raises:
        TypeError: One is of a wrong kind.
        ValueError: One is empty.
    """
    found = _checked("SystemClient", _FILTERS, given)
    return {**found, "exact_match": True} if found else {}


def chosen(kind: Kind, **given: object) -> dict[str, Any]:
    """Check the options of a request.

    Args:
        kind: What is asked.
        given: The options; None, False and 0 are not chosen.

    Returns:
        Those that were chosen.

    Raises:
        TypeError: One is of a wrong kind.
        ValueError: One is empty, negative, or not to be had beside another.
    """
    call = kind.lower()
    found = _checked(call, _OPTIONS[kind], given)
    if "filter_subject" in found:
        _needs(call, found, "filter_subject", "account", "of whose connections it is asked")
        subscribe_subject(found["filter_subject"])
    if found.get("sort") in _OF_CLOSED and found.get("state") != "closed":
        raise ValueError(f"connz: sort={found['sort']!r} is for state='closed' only")
    if kind == "HEALTHZ":
        if "stream" in found:
            _needs(call, found, "stream", "account", "that it is of")
        if "consumer" in found:
            _needs(call, found, "consumer", "stream", "that it is of")
        if {"js_enabled_only", "js_server_only"} <= found.keys():
            raise ValueError("healthz: js_enabled_only and js_server_only exclude each other")
    return found


def request_of(kind: Kind, server: str, options: Mapping[str, Any]) -> Request:
    """Make what a server, or all of them, are asked.

    Of an account they are asked by the subject that is its own, where there is one: that is all that some may ask.

    Args:
        kind: What is asked.
        server: The server's id, or `ALL_SERVERS`.
        options: What was chosen.
    """
    account = options.get("account")
    if server == ALL_SERVERS and kind in _BY_ACCOUNT and account and _token(account):
        rest = {name: value for name, value in options.items() if name != "account"}
        return Request(f"$SYS.REQ.ACCOUNT.{account}.{kind}", _written(kind, rest))
    return Request(f"$SYS.REQ.SERVER.{server}.{kind}", _written(kind, options))


def _written(kind: Kind, options: Mapping[str, Any]) -> bytes:
    said = {_ON_THE_WIRE.get((kind, name), name): value for name, value in options.items()}
    if "state" in said:
        said["state"] = _STATES[said["state"]]
    return json.dumps(said).encode() if said else b""


def _checked(call: str, hints: Mapping[str, object], given: Mapping[str, object]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        check_argument(call, name, hints[name], value)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.strip():
                raise ValueError(f"{call}: {name} is empty")
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{call}: {name} is {value}: it must be 0 or more")
        if value:
            found[name] = value
    return found


def _needs(call: str, found: Collection[str], name: str, other: str, why: str) -> None:
    if other not in found:
        raise ValueError(f"{call}: {name} needs the {other} {why}")
