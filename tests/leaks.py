"""What an exception shows, to whoever looks, and what an object holds: for tests that look for secrets in it.

    assert not leaks(secret, *shown(error))

Looked at are `str()`, `repr()`, arguments, attributes and notes, those of all causes and contexts, whether a traceback would
print them or not, the exceptions in a group, and each local variable of each frame that is not a test's own, as
`traceback.TracebackException(capture_locals=True)` and debuggers show them.
"""

from __future__ import annotations

import base64
import gc
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

TESTS = str(Path(__file__).parent)
ELSEWHERE = (type, types.ModuleType, types.FunctionType, types.FrameType)


def shown(error: BaseException) -> Iterator[tuple[str, str]]:
    """Give all that an exception shows: where it shows it, and the text."""
    seen: set[int] = set()
    todo: list[tuple[str, BaseException]] = [("it", error)]
    while todo:
        where, each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        kind = f"{where}, {type(each).__name__}"
        yield f"{kind}: str", str(each)
        yield f"{kind}: repr", repr(each)
        yield f"{kind}: arguments", repr(each.args)
        for name in {*vars(each), "filename", "filename2", "doc", "object", "obj", "name", "strerror"}:
            yield f"{kind}: {name}", repr(getattr(each, name, None))
        yield from ((f"{kind}: {name}", text) for name, text in _variables(each))
        links = ((f"{where}.{name}", getattr(each, name)) for name in ("__cause__", "__context__"))
        todo += [(name, other) for name, other in links if other is not None]
        if isinstance(each, BaseExceptionGroup):
            todo += [(f"{where}.exceptions", other) for other in each.exceptions]
    yield "traceback", "".join(traceback.format_exception(error))


def _variables(error: BaseException) -> Iterator[tuple[str, str]]:
    for frame in traceback.TracebackException.from_exception(error, capture_locals=True).stack:
        if not frame.filename.startswith(TESTS):
            for name, text in (frame.locals or {}).items():
                yield f"{Path(frame.filename).name}:{frame.lineno} {frame.name}, local {name}", text


def forms(secret: str) -> set[str]:
    """Give the forms in which a secret is still one: as it is, and encoded as somebody on the way may have done it."""
    raw = secret.encode()
    texts = {secret, secret.lower(), secret.strip(), quote(secret, safe=""), raw.hex(), repr(secret)[1:-1]}
    for neighbours, shared in ((b"", 0), (b"x", 2), (b"xx", 3)):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # Without the signs that hold some of the neighbours, too.
            texts.add(encode(neighbours + raw).decode().rstrip("=")[shared:-2])
    # What is long is a secret in part, too.
    if len(secret) > 40:
        texts |= {secret[:16], secret[-16:], secret[16:32]}
    return {text for text in texts if len(text) >= 4 and not text.isspace()}


def leaks(secret: str, *texts: tuple[str, str]) -> list[str]:
    """Say where a secret is shown."""
    wanted = forms(secret)
    return [f"{where}: {text[:200]}" for where, text in texts if any(form in text for form in wanted)]


def held(root: object) -> Iterator[object]:
    """Give all that an object holds, itself included: what it refers to, what that refers to, and so on.

    The way leads into the test's own task, and what pytest holds there, among it all other tests, is left out.
    """
    seen: set[int] = set()
    todo = [root]
    while todo:
        each = todo.pop()
        if id(each) not in seen and not isinstance(each, ELSEWHERE) and not type(each).__module__.startswith("_pytest"):
            seen.add(id(each))
            yield each
            todo += gc.get_referents(each)


def told_by(root: object) -> Iterator[tuple[str, str]]:
    """Give the `repr` of each object of ours that an object holds."""
    for each in held(root):
        if type(each).__module__.startswith("trionats"):
            yield type(each).__name__, repr(each)
