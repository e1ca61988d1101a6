"""Key-value buckets: their names, what their streams are, and where a mirror's entries are stored first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["KeyValueBucket"]


@final
@dataclass(frozen=True, slots=True)
class KeyValueBucket:
    """The names of a key-value bucket.

    Attributes:
        name: The bucket's name.
        read_prefix: What stands before a key in the subjects of the bucket's stream: `$KV.<name>.`, or the origin's for a mirror.
        write_prefix: What stands before a key in the subject that it is published to: with the prefix of the API where that is
            not the default one (ADR-19), and a mirror's origin's.
    """

    name: str
    read_prefix: str
    write_prefix: str

    def __str__(self) -> str:
        return f"key-value bucket {self.name!r}"

    @property
    def stream(self) -> str:
        """The stream that holds it."""
        return f"KV_{self.name}"
