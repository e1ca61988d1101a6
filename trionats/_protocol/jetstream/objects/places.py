"""What stands in the place of an object, readable or not, with what it takes to write over it."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trionats import errors
from trionats._protocol.jetstream.objects.infos import read_info, sound_nuid
from trionats._protocol.jetstream.objects.names import latin

if TYPE_CHECKING:
    from trionats import api

__all__ = ["SHARES", "Place", "read_place"]

#: In an info: another place where the same chunks may be named, since the object is being renamed, or was. An ``extra`` to
#: every other client.
SHARES = "shares_chunks_with"

_token_form = re.compile(r"[-_=A-Za-z0-9]+").fullmatch


@dataclass(frozen=True)
class Place:
    """What stands in one place where an object's info may stand.

    Attributes:
        subject: The place.
        revision: The sequence of what stands there; 0 for nothing.
        info: The info, of an object or of a deleted one; None where there is none, or none that can be read.
        problem: Why what stands there cannot be read.
        nuid: Under which its chunks are; empty where that is not known, or cannot be true.
        elsewhere: The name of another object, whose place this is in the other alphabet.
    """

    subject: str
    revision: int = 0
    info: api.ObjectInfo | None = None
    problem: errors.BadObjectMetaError | None = None
    nuid: str = ""
    elsewhere: str | None = None

    @property
    def taken(self) -> bool:
        """Whether an object stands here, readable or not; a marker of a deleted one is none."""
        if self.elsewhere is not None:
            return False
        return self.problem is not None or (self.info is not None and not self.info.deleted)

    @property
    def claim(self) -> str:
        """Under which nuid its chunks are; empty where nobody needs any: a marker's are left-overs."""
        return "" if self.info is not None and self.info.deleted else self.nuid

    @property
    def shared(self) -> str:
        """The other place that the object has, or had, since it was renamed; empty for none."""
        said = None if self.info is None else self.info.extra.get(SHARES)
        if not isinstance(said, str) or said == self.subject:
            return ""
        # Anybody may have written it: it has to be a place in this bucket.
        prefix, _, token = said.rpartition(".")
        return said if prefix == self.subject.rpartition(".")[0] and _token_form(token) else ""


def read_place(bucket: str, name: str, subject: str, message: Any) -> Place:  # noqa: ANN401 - the server's word
    """Read what the server says stands in a place.

    Args:
        bucket: The bucket, for texts.
        name: The object that is looked for.
        subject: The place.
        message: The `message` of the response.

    Raises:
        trionats.errors.APIError: It is none.
    """
    try:
        data = base64.b64decode(message.get("data") or "")
        revision, stored_at = int(message["seq"]), str(message["time"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        text = f"object {name!r} in bucket {bucket!r}: what came back is no stored message ({error!r})"
        nothing = {"code": None, "err_code": None, "stream": None, "seq": None}
        raise errors.explained(errors.APIError, text, description="not a stored message", **nothing) from None
    try:
        info = read_info(bucket, data, revision=revision, stored_at=stored_at, subject=subject, name=name)
    except errors.BadObjectMetaError as problem:
        return Place(subject, revision, problem=problem, nuid=sound_nuid(data), elsewhere=_other_name(name, subject))
    other = info.name != name and _is_place_of(info.name, subject)
    return Place(subject, revision, info, nuid=info.nuid, elsewhere=info.name if other else None)


def _other_name(name: str, subject: str) -> str | None:
    """Name another object that everybody but nats.js would look for in a place; None where there is none."""
    try:
        found = base64.urlsafe_b64decode(subject.rpartition(".")[2]).decode()
    except UnicodeDecodeError:
        return None
    return None if found == name else found


def _is_place_of(name: str, subject: str) -> bool:
    """Whether a subject is a name's place in either alphabet."""
    forms = [name.encode(errors="replace"), latin(name)]
    token = subject.rpartition(".")[2]
    return any(base64.urlsafe_b64encode(form).decode() == token for form in forms if form)
