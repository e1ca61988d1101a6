"""The words of services on the wire (ADR-32): subjects, types of answers, headers."""

from __future__ import annotations

from typing import Final, Literal

__all__ = [
    "ERROR",
    "ERROR_CODE",
    "INFO_TYPE",
    "PING_TYPE",
    "PREFIX",
    "STATS_TYPE",
    "TIMEOUT",
    "VERBS",
    "Verb",
    "control_subject",
]

Verb = Literal["PING", "INFO", "STATS"]

#: What can be asked of a service.
VERBS: Final[tuple[Verb, ...]] = ("PING", "INFO", "STATS")
#: What the subjects begin with on which it is asked; tools may use another one.
PREFIX: Final = "$SRV"

PING_TYPE: Final = "io.nats.micro.v1.ping_response"
INFO_TYPE: Final = "io.nats.micro.v1.info_response"
STATS_TYPE: Final = "io.nats.micro.v1.stats_response"

#: The headers of a response that says that a request failed: a text, and a number as text.
ERROR: Final = "Nats-Service-Error"
ERROR_CODE: Final = "Nats-Service-Error-Code"

#: The header of a request that says for how long somebody waits for its response, in whole milliseconds. Ours: nobody else's.
TIMEOUT: Final = "Trionats-Timeout"


def control_subject(verb: Verb, name: str | None = None, instance: str | None = None, prefix: str = PREFIX) -> str:
    """Make the subject on which services are asked.

    Args:
        verb: What is asked.
        name: The services' name; None for all that there are.
        instance: The id of one of them; only with its name.
        prefix: What the subject begins with.
    """
    return ".".join([part for part in (prefix, verb, name, instance) if part is not None])
