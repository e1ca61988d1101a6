"""Codecs: other forms that keys and values have for a program than in the bucket (ADR-54).

The forms of `Base64Codec` and `PathCodec` are those of the codecs that Go's programs use (orbit's kvcodec), so that they share buckets.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final

if TYPE_CHECKING:
    from trionats import api

__all__ = ["ALL_KEYS", "Base64Codec", "Codecs", "KeyCodec", "PathCodec", "ValueCodec"]

C = TypeVar("C")

#: The pattern of all keys, which is the same in every form.
ALL_KEYS: Final = ">"
_WILDCARDS: Final = frozenset({"*", ">"})
#: What stands in place of a leading slash, since no subject begins with a dot.
_ROOT: Final = "_root_"


class KeyCodec(Protocol):
    """What gives keys another form in the bucket: what `KeyValue.with_codecs` takes as `keys`.

    Its methods are called synchronously. What they raise when something is written or asked for goes to who asked, before
    anything is sent; what `decode_key` raises of a stored key leaves that key out.
    """

    def encode_key(self, key: str) -> str:
        """Give the form in the bucket: tokens of letters, digits and `-/_=`, separated by single dots."""

    def decode_key(self, key: str) -> str:
        """Give the form that the program knows: what `encode_key` makes the same stored key of."""

    def encode_filter(self, pattern: str) -> str:
        """Give the form of a pattern; its wildcards `*` and `>` stay what they are. It is not asked about `>` alone."""


class ValueCodec(Protocol):
    """What gives values another form in the bucket: what `KeyValue.with_codecs` takes as `values`; as for `KeyCodec`."""

    def encode_value(self, value: bytes) -> bytes:
        """Give the form in the bucket."""

    def decode_value(self, value: bytes) -> bytes:
        """Give the form that the program knows."""


@final
class Base64Codec:
    """Keys of any letters, and values of letters only: base64 for URLs without padding, of keys token by token.

    The dots of a key stay, and so do the wildcards of a pattern: a token of a key that is `*` or `>` itself cannot be asked for by
    a pattern.
    """

    def encode_key(self, key: str) -> str:
        """Encode each token's UTF-8."""
        return ".".join(_base64(token.encode()).decode() for token in key.split("."))

    def decode_key(self, key: str) -> str:
        """Decode each token.

        Raises:
            ValueError: It is no base64, or not of text.
        """
        return ".".join(_of_base64(token.encode()).decode() for token in key.split("."))

    def encode_filter(self, pattern: str) -> str:
        """Encode each token that is no wildcard."""
        tokens = pattern.split(".")
        return ".".join(token if token in _WILDCARDS else _base64(token.encode()).decode() for token in tokens)

    def encode_value(self, value: bytes) -> bytes:
        """Encode a value."""
        return _base64(value)

    def decode_value(self, value: bytes) -> bytes:
        """Decode a value.

        Raises:
            ValueError: It is no base64.
        """
        return _of_base64(value)


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _of_base64(data: bytes) -> bytes:
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"{data[:40]!r} is no base64 without padding: {error}") from None


@final
class PathCodec:
    """Keys as paths: `/config/app` is `_root_.config.app` in the bucket, `config/app` is `config.app`.

    A slash at the end is left out. A path with a dot is none: it would be stored, and come back, as if that were a slash, and so
    be the same key as another one. Where paths have dots, let a codec of your own write them otherwise before this one.
    """

    def encode_key(self, key: str) -> str:
        """Put dots in place of slashes.

        Raises:
            ValueError: It has a dot, or begins like what stands for a slash at the beginning.
        """
        if "." in key or key.partition("/")[0] == _ROOT:
            what = "a dot" if "." in key else f"{_ROOT} at its beginning"
            raise ValueError(f"path {key[:80]!r}: {what} would stand for a slash in the bucket")
        if key == "/":
            return _ROOT
        if key.startswith("/"):
            key = f"{_ROOT}.{key[1:]}"
        return key.removesuffix("/").replace("/", ".")

    def decode_key(self, key: str) -> str:
        """Put slashes in place of dots."""
        root, separator, rest = key.partition(".")
        if root == _ROOT:
            return f"/{rest.replace('.', '/')}" if separator else "/"
        return key.replace(".", "/")

    def encode_filter(self, pattern: str) -> str:
        """Put dots in place of slashes, as `encode_key` does."""
        return self.encode_key(pattern)


@final
@dataclass(frozen=True, slots=True)
class Codecs:
    """The codecs of a bucket, in the order in which they are applied when something is written.

    Attributes:
        keys: Those of keys.
        values: Those of values.
    """

    keys: tuple[KeyCodec, ...] = ()
    values: tuple[ValueCodec, ...] = ()

    def before(
        self, keys: KeyCodec | Sequence[KeyCodec] | None, values: ValueCodec | Sequence[ValueCodec] | None
    ) -> Codecs:
        """Put others before these.

        Args:
            keys: Codecs of keys: one, several of which the first is applied first, or None.
            values: The same of values.

        Raises:
            TypeError: One of them is none.
        """
        first_keys = _several("keys", keys, "encode_key", "decode_key", "encode_filter")
        first_values = _several("values", values, "encode_value", "decode_value")
        return Codecs((*first_keys, *self.keys), (*first_values, *self.values))

    def encode_key(self, key: str) -> str:
        """Give a key's form in the bucket.

        Raises:
            TypeError: It is no text, or a codec has made something else of it.
        """
        for codec in self.keys:
            key = _text(codec, "encode_key", codec.encode_key(_key(key)))
        return key

    def decode_key(self, stored: str) -> str:
        """Give the form of a stored key that the program knows.

        Raises:
            ValueError: No program with these codecs has stored it: it is not what its own form is encoded to.
        """
        key = stored
        for codec in reversed(self.keys):
            key = _text(codec, "decode_key", codec.decode_key(key))
        if self.keys and self.encode_key(key) != stored:
            raise ValueError(f"key {stored!r} is none of these codecs: they make something else of {key!r}")
        return key

    def encode_filter(self, pattern: str) -> str:
        """Give a pattern's form in the bucket.

        Raises:
            TypeError: It is no text, or a codec has made something else of it.
        """
        if pattern != ALL_KEYS:
            for codec in self.keys:
                pattern = _text(codec, "encode_filter", codec.encode_filter(_key(pattern)))
        return pattern

    def encode_value(self, value: bytes) -> bytes:
        """Give a value's form in the bucket.

        Raises:
            TypeError: A codec has made something else than bytes of it.
        """
        for codec in self.values:
            value = _data(codec, "encode_value", codec.encode_value(value))
        return value

    def decode_value(self, value: bytes) -> bytes:
        """Give the form of a stored value that the program knows."""
        for codec in reversed(self.values):
            value = _data(codec, "decode_value", codec.decode_value(value))
        return value

    def decoded(self, entry: api.KeyValueEntry, *, meta_only: bool) -> api.KeyValueEntry:
        """Give an entry as the program knows it.

        Args:
            entry: What is stored.
            meta_only: Whether its value was left on the server.
        """
        has_value = entry.operation is None and not meta_only
        value = self.decode_value(entry.value) if has_value else entry.value
        return replace(entry, key=self.decode_key(entry.key), value=value)


def _several(name: str, codecs: C | Sequence[C] | None, *methods: str) -> tuple[C, ...]:
    if codecs is None:
        return ()
    given = tuple(codecs) if isinstance(codecs, Sequence) else (codecs,)
    for codec in given:
        if isinstance(codec, type) or not all(callable(getattr(codec, method, None)) for method in methods):
            wrong = f"the class {codec.__name__}" if isinstance(codec, type) else f"a {type(codec).__name__}"
            text = f"it must be a codec, with {', '.join(methods)}, or several of them, and {wrong} is none"
            raise TypeError(f"with_codecs: {name}: {text}")
    return given


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"key {key!r}: it must be text, not {type(key).__name__}")
    return key


def _text(codec: object, method: str, made: object) -> str:
    if not isinstance(made, str):
        raise TypeError(f"{type(codec).__name__}.{method}() must give text, not {type(made).__name__}")
    return made


def _data(codec: object, method: str, made: object) -> bytes:
    if not isinstance(made, bytes):
        raise TypeError(f"{type(codec).__name__}.{method}() must give bytes, not {type(made).__name__}")
    return made
