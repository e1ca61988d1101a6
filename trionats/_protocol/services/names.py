"""What services, groups and endpoints may be called (ADR-32), and where their requests go."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trionats import errors
from trionats._protocol import subjects
from trionats._protocol.fields import check_argument

__all__ = [
    "described",
    "endpoint_subject",
    "group_prefix",
    "instance_of",
    "metadata_of",
    "name_of",
    "queue_of",
    "version_of",
]

_is_token = re.compile(r"[^\s.*>]++").fullmatch
_is_name = re.compile(r"[a-zA-Z0-9_-]++").fullmatch
_NUMBER = r"(?:0|[1-9][0-9]*+)"
_PART = r"(?:0|[1-9][0-9]*+|[0-9]*+[a-zA-Z-][0-9a-zA-Z-]*+)"
#: As semver.org has it.
_is_version = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PART}(?:\.{_PART})*+)?(?:\+[0-9a-zA-Z-]++(?:\.[0-9a-zA-Z-]++)*+)?"
).fullmatch


def name_of(call: str, name: str) -> str:
    """Check the name of a service, or of an endpoint.

    Args:
        call: Who is given it, for the text: "open_service".
        name: ASCII letters, digits, dash and underscore.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, or has another character.
    """
    check_argument(call, "name", str, name)
    if _is_name(name) is None:
        raise ValueError(
            f"{call}: name {name[:120]!r}: it consists of ASCII letters, digits, '-' and '_', at least one"
        )
    return name


def instance_of(call: str, instance: str, name: str | None) -> str:
    """Check the id of a service, of any client's.

    Args:
        call: As for `name_of`.
        instance: The id.
        name: The name of the service; it is asked by both.

    Raises:
        TypeError: It is no text.
        ValueError: There is no name, or no id can be like that.
    """
    check_argument(call, "id", str, instance)
    if name is None:
        raise ValueError(f"{call}: id needs the name of the service")
    if _is_token(instance) is None:
        raise ValueError(f"{call}: id {instance[:120]!r}: it is a token of a subject, without wildcards")
    return instance


def prefix_of(call: str, prefix: str) -> str:
    """Check what the subjects begin with on which services are asked.

    Args:
        call: As for `name_of`.
        prefix: A subject without wildcards.

    Raises:
        TypeError: It is no text.
        ValueError: Nothing can be published behind it.
    """
    subjects.pattern(f"{call}: prefix", prefix)
    if {"*", ">"} & set(prefix.split(".")):
        raise ValueError(f"{call}: prefix {prefix[:120]!r}: wildcards are for subscriptions only")
    return prefix


def version_of(call: str, version: str) -> str:
    """Check the version of a service.

    Args:
        call: As for `name_of`.
        version: A version as semver.org has them: "1.2.3", "1.2.3-beta.1+build".

    Raises:
        TypeError: It is no text.
        ValueError: It is no such version.
    """
    check_argument(call, "version", str, version)
    if _is_version(version) is None:
        raise ValueError(f"{call}: version {version[:120]!r}: it must be a version such as '1.2.3' (semver.org)")
    return version


def described(call: str, description: str) -> str:
    """Check the description of a service."""
    check_argument(call, "description", str, description)
    return description


def metadata_of(call: str, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Check the metadata of a service or an endpoint, and copy it.

    Args:
        call: As for `name_of`.
        metadata: Names and texts; None for none.

    Raises:
        TypeError: It is no mapping of texts.
    """
    copied = dict(metadata) if isinstance(metadata, Mapping) else metadata
    check_argument(call, "metadata", dict[str, str] | None, copied)
    return copied or {}


def queue_of(call: str, queue: str | None, inherited: str | None) -> str:
    """Say which queue group it is.

    Args:
        call: As for `name_of`.
        queue: The name of the group; an empty string for none; None for the one that is inherited.
        inherited: That one; None where there is none, so one has to be named.

    Raises:
        TypeError: It is no text.
        ValueError: No queue group can be called so.
    """
    check_argument(call, "queue", str if inherited is None else str | None, queue)
    if queue:
        try:
            subjects.queue_name(queue)
        except errors.BadSubjectError as error:
            raise ValueError(f"{call}: {error}") from None
    return (inherited or "") if queue is None else queue


def group_prefix(call: str, prefix: str, name: str) -> str:
    """Say what the subjects of a group begin with.

    Args:
        call: As for `name_of`.
        prefix: What those of the group around it begin with; empty for none.
        name: The group's name: a subject without `>`.

    Raises:
        TypeError: It is no text.
        ValueError: No subject can begin with it.
    """
    subjects.pattern(f"{call}: name", name)
    if name.endswith(">"):
        raise ValueError(f"{call}: name {name[:120]!r}: nothing can follow '>'")
    return f"{prefix}.{name}" if prefix else name


def endpoint_subject(call: str, prefix: str, name: str, subject: str | None) -> str:
    """Say where the requests of an endpoint go.

    Args:
        call: As for `name_of`.
        prefix: What the subjects of its group begin with; empty for none.
        name: The endpoint's name.
        subject: What was chosen in place of its name; it may have wildcards.

    Raises:
        TypeError: It is no text.
        ValueError: Nothing can be subscribed to like that.
    """
    last = name if subject is None else subjects.pattern(f"{call}: subject", subject)
    return f"{prefix}.{last}" if prefix else last
