"""Names: check them, match them, make inboxes.

Strategy. A name that reaches the wire unchecked can end the control line it stands in, so every text argument passes
through this module once and leaves it as bytes. What is refused is what the wire cannot carry (ASCII white space and
control characters) and what the server accepts and then silently delivers nowhere (empty tokens, wildcards in a publish).
Anything else in UTF-8 is allowed, as it is by the server.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trionats import errors

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

__all__ = [
    "Nuid",
    "WildSubject",
    "bucket_name",
    "consumer_creation",
    "consumer_name",
    "inbox_prefix",
    "matches",
    "publish_subject",
    "queue_name",
    "stream_name",
    "subscribe_subject",
    "widest",
]

_BLANK = r"\x00-\x20\x7f"
_TOKEN = rf"[^{_BLANK}.*>]++"
_is_publishable = re.compile(rf"{_TOKEN}(?:\.{_TOKEN})*+").fullmatch
_is_subscribable = re.compile(rf"(?:(?:{_TOKEN}|\*)\.)*+(?:{_TOKEN}|\*|>)").fullmatch
_is_word = re.compile(rf"[^{_BLANK}]++").fullmatch
_is_bucket = re.compile(r"[-_a-zA-Z0-9]++").fullmatch
_is_js_name = re.compile(rf"[^{_BLANK}.*>/\\]++").fullmatch
_has_blank = re.compile(rf"[{_BLANK}]").search

_SHOWN = 120
#: The server's limit for a line is 4,096 bytes; the prefix, the names and the reply subject stand in it, too.
_LONGEST_FILTER = 3000
_ALPHABET = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TO_ALPHABET = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))


#: Where a pattern ends in a tree of them; no token has a blank in it.
_END = " "


class _Node(dict[str, "_Node"]):
    """What may follow in patterns that begin alike, by the next token."""

    __slots__ = ()


class WildSubject(str):
    """A subject that is published to although it has wildcards, which the server then takes for letters.

    The JetStream API has such subjects: who creates a consumer repeats its filter there, so that permissions can be
    granted by filter.
    """

    __slots__ = ()


def publish_subject(subject: str, doing: str = "publish to") -> bytes:
    """Check a subject that a message is to be sent to, and encode it.

    Args:
        subject: A subject without wildcards, unless it is a `WildSubject`; also the form of a reply subject.
        doing: What is done with it, for the texts of exceptions.

    Returns:
        The subject as it stands on the wire.

    Raises:
        BadSubjectError: It is empty, or has white space, control characters, empty tokens, wildcards or lone surrogates.
    """
    _check_text(doing, subject)
    if _is_publishable(subject) is None and not (isinstance(subject, WildSubject) and _is_subscribable(subject)):
        raise _bad(doing, subject, _complaint(subject) or "wildcards are for subscriptions only")
    return _encoded(doing, subject)


def subscribe_subject(subject: str) -> bytes:
    """Check a subject that is to be subscribed to, and encode it.

    Args:
        subject: A subject in which `*` may stand for a whole token, and `>` for all the rest.

    Returns:
        The subject as it stands on the wire.

    Raises:
        BadSubjectError: As in `publish_subject`, except that wildcards are allowed where they belong.
    """
    _check_text("subscribe to", subject)
    if _is_subscribable(subject) is None:
        complaint = _complaint(subject) or "a wildcard is a whole token, and '>' the last one"
        raise _bad("subscribe to", subject, complaint)
    return _encoded("subscribe to", subject)


def pattern(where: str, subject: str) -> str:
    """Check a pattern of subjects that is an argument of a call, or stands in a configuration.

    Args:
        where: Which one it is: "purge: subject".
        subject: The pattern; a subject, which may have wildcards.

    Returns:
        The same pattern.

    Raises:
        TypeError: It is no text.
        ValueError: Nothing can be subscribed to like that.
    """
    if not isinstance(subject, str):
        raise TypeError(f"{where} must be text, not {type(subject).__name__}")
    try:
        subscribe_subject(subject)
    except errors.BadSubjectError as error:
        raise ValueError(f"{where}: {error}") from None
    return subject


def domain_name(name: str) -> str:
    """Check the name of a JetStream domain.

    Args:
        name: The name: one token of a subject.

    Returns:
        The same name.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty or cannot be a token.
    """
    _check_text("JetStream domain", name)
    if _is_publishable(name) is None or "." in name:
        raise ValueError(f"JetStream domain {_shown(name)}: it must be one token, without white space and . * >")
    return name


def queue_name(queue: str) -> bytes:
    """Check the name of a queue group, and encode it.

    Args:
        queue: The name, not empty.

    Returns:
        The name as it stands on the wire.

    Raises:
        BadSubjectError: It is empty, or has white space, control characters or lone surrogates.
    """
    _check_text("queue group", queue)
    if _is_word(queue) is None:
        complaint = "white space and control characters are not allowed" if queue else "it is empty"
        raise _bad("queue group", queue, complaint)
    return _encoded("queue group", queue)


def inbox_prefix(prefix: str) -> str:
    """Check what inbox subjects are to begin with.

    Args:
        prefix: A publishable subject without a dot at its end.

    Returns:
        The same prefix.

    Raises:
        BadSubjectError: No subject can begin with it.
    """
    _check_text("inbox prefix", prefix)
    if _is_publishable(prefix) is None:
        raise _bad("inbox prefix", prefix, _complaint(prefix) or "wildcards are not allowed")
    _encoded("inbox prefix", prefix)
    return str.__str__(prefix)


def bucket_name(bucket: str) -> str:
    """Check the name of a key-value bucket or an object store.

    Args:
        bucket: ASCII letters, digits, dash and underscore.

    Returns:
        The same name.

    Raises:
        InvalidBucketNameError: It is empty or has another character.
    """
    _check_text("bucket", bucket)
    if _is_bucket(bucket) is None:
        text = f"bucket {_shown(bucket)}: a name consists of ASCII letters, digits, '-' and '_', at least one"
        raise errors.explained(errors.InvalidBucketNameError, text)
    return str.__str__(bucket)


def stream_name(name: str) -> str:
    """Check the name of a stream, which becomes a token of API subjects.

    Args:
        name: The name.

    Returns:
        The same name.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty or cannot be a token (nats-py's manager raises the same).
    """
    return _js_name("stream", name)


def consumer_name(name: str) -> str:
    """Check the name of a consumer, which becomes a token of API subjects.

    Args:
        name: The name.

    Returns:
        The same name.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty or cannot be a token (nats-py's manager raises the same).
    """
    return _js_name("consumer", name)


def consumer_creation(stream: str, name: str, filter_subject: object) -> str:
    """Make the subject, without the API's prefix, at which a consumer is created.

    A single filter stands in it, so that who may only read some subjects can be given the permission for just these.
    Where it does not fit into a control line, or is one of a list (the server's error 10137), it is left out.

    Args:
        stream: The stream's name.
        name: The consumer's name.
        filter_subject: The one filter that the consumer's configuration has under this name, or None.

    Returns:
        The subject.
    """
    subject = f"CONSUMER.CREATE.{stream}.{name}"
    if not isinstance(filter_subject, str) or not 0 < len(filter_subject.encode(errors="replace")) <= _LONGEST_FILTER:
        return subject
    return WildSubject(f"{subject}.{filter_subject}")


def matches(pattern: str, subject: str) -> bool:
    """Say whether a subscription to `pattern` is given what is published to `subject`.

    Args:
        pattern: A subject that may have wildcards.
        subject: A subject without wildcards.

    Returns:
        Whether every token agrees; `>` stands for one token or more.
    """
    wanted = pattern.split(".")
    tokens = subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


def widest(patterns: Sequence[str]) -> list[str]:
    """Leave out what others cover: the server refuses a filter all of whose subjects match another one, too.

    Args:
        patterns: Subjects that may have wildcards.

    Returns:
        Those that match the same subjects, none of which is covered by another one, in the same order.
    """
    distinct = list(dict.fromkeys(patterns))
    root = _Node()
    for one in distinct:
        node = root
        for token in one.split("."):
            node = node.setdefault(token, _Node())
        node[_END] = _Node()
    return [one for one in distinct if _wider(root, one) == 1]


def _wider(root: _Node, narrow: str) -> int:
    """Count the patterns of a tree that match all that one of them matches, with itself.

    Thousands of patterns are compared with each other in one go, so that each must not be compared with each.
    """
    found, nodes = 0, [root]
    for token in narrow.split("."):
        found += sum(">" in node for node in nodes)
        # The last token of a narrow one may be ">", which only ">" covers.
        choices = () if token == ">" else {token, "*"}
        nodes = [node[choice] for node in nodes for choice in choices if choice in node]
    return found + sum(_END in node for node in nodes)


class Nuid:
    """A source of unique names of 22 letters and digits, with 130 bits of randomness each.

    All 22 characters are random, unlike in other clients, where most of them count up: names of one source then share
    no prefix, and one that was seen says nothing about the next.

    Args:
        rng: Where the randomness comes from.
    """

    __slots__ = ("_pool", "_position", "_rng")

    LENGTH = 22
    _POOLED = 64

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pool = ""
        self._position = 0

    def next(self) -> str:
        """Make a name.

        Returns:
            22 characters of 0-9, A-Z and a-z.
        """
        position = self._position
        if position == len(self._pool):
            # Eight letters are 5/256 likely instead of 4/256: it costs half a bit of the 131, and is 20 times faster.
            raw = self._rng.randbytes(self.LENGTH * self._POOLED)
            self._pool = raw.translate(_TO_ALPHABET).decode("ascii")
            position = 0
        self._position = position + self.LENGTH
        return self._pool[position : self._position]


def _js_name(kind: str, name: str) -> str:
    _check_text(kind, name)
    if _is_js_name(name) is None:
        complaint = "white space, control characters and any of . * > / \\ are not allowed" if name else "it is empty"
        raise ValueError(f"{kind} {_shown(name)}: {complaint}")
    try:
        str.encode(name)
    except UnicodeEncodeError:
        raise ValueError(f"{kind} {_shown(name)}: it is not valid Unicode text") from None
    return str.__str__(name)


def _complaint(subject: str) -> str:
    if not subject:
        return "it is empty"
    if _has_blank(subject):
        return "a subject has no white space and no control characters"
    if "" in subject.split("."):
        return "a subject has no empty tokens"
    return ""


def _encoded(what: str, text: str) -> bytes:
    try:
        # As the text is, not as a kind of text of the caller's own would have it encoded.
        return str.encode(text)
    except UnicodeEncodeError:
        raise _bad(what, text, "it is not valid Unicode text") from None


def _check_text(where: str, name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{where} {name!r}: it must be text, not {type(name).__name__}")


def _bad(what: str, text: str, complaint: str) -> errors.BadSubjectError:
    return errors.explained(errors.BadSubjectError, f"{what} {_shown(text)}: {complaint}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
