"""`backup.json`: the configuration of the stream and its state when the backup began, in the server's own words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trionats import api, errors
from trionats._protocol import fields, subjects

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FILE", "MOST_BYTES", "Manifest", "configuration", "incomplete", "read", "written"]

#: The name of the file, as the `nats` tool gives it.
FILE: Final = "backup.json"
#: What is larger is none: a configuration has a few KiB, and the server's limits for its parts end below 1 MiB.
MOST_BYTES: Final = 8 * 1024 * 1024


class Manifest(NamedTuple):
    """What the server said of a stream, and is told again when it is restored."""

    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def stream(self) -> str:
        """The stream's name."""
        return str(self.config["name"])


def of_response(response: Mapping[str, object]) -> Manifest | None:
    """Take it from the response to a request for a snapshot; None where it does not stand there."""
    config, state = response.get("config"), response.get("state")
    return Manifest(config, state) if isinstance(config, dict) and isinstance(state, dict) else None


def written(manifest: Manifest) -> bytes:
    """Give the content of the file."""
    return json.dumps(manifest._asdict(), indent=2).encode()


def read(doing: str, content: bytes) -> Manifest:
    """Read the content of the file.

    Args:
        doing: What is being done, for the text of the exception.
        content: The content.

    Raises:
        trionats.errors.BackupIncompleteError: It is none.
    """
    try:
        said = json.loads(content)
        # Python reads and writes numbers that JSON does not have, and reads deeper than it writes: the server is to be told this.
        json.dumps(said, allow_nan=False)
    except (ValueError, RecursionError):
        said = None
    manifest = of_response(said) if isinstance(said, dict) else None
    if manifest is None:
        raise incomplete(doing, f"its {FILE} holds no configuration and state of a stream")
    name = manifest.config.get("name")
    try:
        subjects.stream_name(name if isinstance(name, str) else "")
    except ValueError as error:
        raise incomplete(doing, f"its {FILE} names no stream: {error}") from None
    return manifest


def configuration(doing: str, manifest: Manifest) -> api.StreamConfig:
    """Read the stream's configuration, to change something about it.

    Args:
        doing: What is being done, for the text of the exception.
        manifest: What the server said.

    Raises:
        trionats.errors.BackupIncompleteError: It is none.
    """
    try:
        config = api.StreamConfig.from_response(manifest.config)
        complaint = fields.complaint(config)
    except Exception as error:  # whatever stands in the file
        raise incomplete(doing, f"its {FILE} holds no configuration: {error}") from None
    if complaint is not None:
        raise incomplete(doing, f"its {FILE} holds no configuration: {complaint}")
    return config


def incomplete(doing: str, complaint: str) -> errors.BackupIncompleteError:
    """Make the error for what is no whole backup."""
    return errors.explained(errors.BackupIncompleteError, f"{doing}: {complaint}")
