"""What may be shown of things that may be secrets, and of words that are somebody else's.

A complaint has to name what is wrong, and what is wrong is often a secret in the wrong place: a seed for a path, a JWT
for a server. So what is shown is first looked at.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_FOREIGN = 512
"""How many characters are shown of what others say."""

SHORTEST_SECRET = 4
_BEGINNING = 12

_SEED = re.compile(r"S[ACNOPUX][A-Z2-7]{20,}", re.ASCII)
_SEED_IN_ANY_CASE = re.compile(r"S[ACNOPUX][A-Z2-7]{50,}", re.ASCII | re.IGNORECASE)
# A JWT begins with an object of JSON in base64: "{" and a quote. All of it, or what somebody cut out of it.
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{5,}", re.ASCII)
# Bytes in base64, of either alphabet: no word is that long.
_ENCODED = re.compile(r"(?<![\w+=-])(?=[\w+=-]{40})[\w+=-]*?[A-Za-z0-9+=]{20}", re.ASCII)
_CONTENT = re.compile(r"\n|-----BEGIN|\A\s*data:", re.IGNORECASE)
_SEPARATORS = re.compile(r"([/\\])")


def is_content(text: str) -> bool:
    """Say whether a text is what stands in a file, or a `data:` reference, where its path belongs."""
    return _CONTENT.search(text) is not None


def is_key(text: str) -> bool:
    """Say whether a text looks like an NKey seed, a mistyped one included, or like a JWT or a part of one."""
    text = text.strip()
    return any(
        pattern is not None for pattern in (_JWT.search(text), _SEED.fullmatch(text), _SEED_IN_ANY_CASE.fullmatch(text))
    )


def is_credential(text: str) -> bool:
    """Say whether a text looks like a key, or like a file of them."""
    return is_content(text) or is_key(text)


def is_secret(text: str) -> bool:
    """Say whether a text looks like a credential, or like something in base64. Passwords look like anything."""
    return is_credential(text) or _ENCODED.search(text) is not None


def shown_path(path: object, *, found: bool = False) -> str:
    """Show a path in a complaint, unless a secret may stand in its place.

    Args:
        path: What was given for it.
        found: It is the path of a file. Of one that is none, a single word is not shown: it may be a password.

    Returns:
        The path as Python writes it, steps of it that look like secrets left out; or what it is instead.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        return f"{type(path).__name__} for a path"
    text = os.fsdecode(path)
    steps = _SEPARATORS.split(text)
    if is_content(text) or (len(steps) == 1 and is_secret(text)):
        return "what is no path"
    if not found and len(steps) == 1 and "." not in text:
        return "the path given"
    return repr("".join("..." if is_secret(step) else step for step in steps))


def hidden(text: str, confided: Iterable[str]) -> str:
    """Leave out of somebody's words what was confided to them: a server may repeat what it did not like.

    Args:
        text: The words.
        confided: Secrets; what is shorter than `SHORTEST_SECRET` stays, since any word may hold it.

    Returns:
        The words, with dots in the place of secrets.
    """
    for secret in confided:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "...")
            # Somebody may have cut it off already.
            if len(secret) > _BEGINNING and (start := text.find(secret[:_BEGINNING])) >= 0:
                text = f"{text[:start]}..."
    return text


def foreign(text: str, longest: int = LONGEST_FOREIGN) -> str:
    """Show words that are somebody else's: bounded, and with nothing in it that moves a cursor.

    Args:
        text: The words.
        longest: How many characters of them are shown.

    Returns:
        One line.
    """
    shown = text[:longest]
    if shown.isprintable():
        return shown
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)
