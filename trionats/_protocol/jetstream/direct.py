"""Reading what a stream holds, without a consumer: single messages, and lists of them (ADR-31).

Theory of operation
    A direct get is answered by any replica of the stream, and by a mirror that was told to (`mirror_direct`). Each of them may
    be behind, and a mirror may have been given a part only. What is stored is what the stream's leader says (design 59), so
    nothing is believed that a replica does *not* have, and nothing at all that comes from another stream: which one has
    answered stands in `Nats-Stream`.

    A list is asked for in pages, each one request with many replies (`Page`), behind which comes a status. There is no flow
    control, and what is lost on the way is lost in silence; but each message names the one before it (`Nats-Last-Sequence`), and
    so does the end. A page that lacks something is kept as far as it is whole, and asked for again from there.

    `Stretch` reads on from a place, `Latest` the last message of each subject. They say what to do next (`next`) and are told what
    came of it: a page, or what the leader has. It is asked where a page ends the list and its replica may be behind:

    * a `404` may be that of a mirror, or of a replica that is behind, and proves nothing alone;
    * "none left" proves it for a stream of one replica; for several, the list has to reach the leader's last message;
    * the last messages of many subjects are those up to the last sequence that a replica had (`Nats-UpTo-Sequence`), which
      must not be before the leader's. Where the limit was chosen it goes along, and a replica that has not come as far as
      that says `404` where it keeps the stream in files. So it does for a limit beyond the end, which hence is made smaller
      first. (In memory it leaves out what it has not, and cannot be told from one that has all: a limit of this form.)

    While it is read in several pages, a subject's last message may be replaced and be gone before its page comes. Then
    fewer come than were announced, and those newer ones are asked for as well, unless a limit was chosen.
"""

from __future__ import annotations

import base64
import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from multidict import MultiDict

from trionats import api, errors
from trionats._protocol import fields, subjects
from trionats._protocol import headers as header_block_of
from trionats._protocol.jetstream.acks import LARGEST, count_of, whole_number
from trionats._told.moments import read_moment, written_moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = [
    "Ask",
    "Find",
    "Latest",
    "Page",
    "Pause",
    "Step",
    "Stretch",
    "Tail",
    "checked_latest",
    "checked_stretch",
    "one_message",
    "read_direct",
    "read_leaders",
]

#: How many messages, and how many bytes of them, are asked for at once. A server sends what it is asked for as fast as it can, and
#: a little more than that: it looks at the bytes behind each message.
PAGE_MESSAGES: Final = 1000
PAGE_BYTES: Final = 8 * 1024 * 1024
#: The server's limit of subjects of one request for last messages.
MOST_SUBJECTS: Final = 1024
_OF_THE_SERVER: Final = ("Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp")
_OF_A_PAGE: Final = ("Nats-Num-Pending", "Nats-Last-Sequence")
_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


def read_leaders(stream: str, message: Mapping[str, Any]) -> api.StoredMsg:
    """Read a message as the leader tells it, in JSON.

    Args:
        stream: The stream that was asked.
        message: What it said.

    Raises:
        ValueError: It is no stored message.
    """
    subject, seq = message.get("subject"), count_of(message.get("seq"))
    if not isinstance(subject, str) or not seq:
        raise ValueError("it has no subject or no sequence")
    block, data = (_decoded(message.get(name)) for name in ("hdrs", "data"))
    return api.StoredMsg(
        stream, subject, seq, read_moment(message.get("time")), data, header_block_of.parse(block).fields
    )


def read_direct(headers: MultiDict[str], data: bytes, *, paged: bool = False) -> api.StoredMsg:
    """Read a message as a direct get gives it: its own headers, with what the server says of it behind them.

    A message that was republished into the stream has the same names among its own headers, so the last one counts.

    Args:
        headers: The headers of the reply.
        data: Its payload.
        paged: It is one of a list.

    Raises:
        ValueError: It is no stored message.
    """
    own = list(headers.items())
    said = {name: _take_last(own, name) for name in ((*_OF_A_PAGE, *_OF_THE_SERVER) if paged else _OF_THE_SERVER)}
    seq = whole_number(said, "Nats-Sequence")
    subject, stream = said["Nats-Subject"], said["Nats-Stream"]
    if not seq or not subject or not stream:
        raise ValueError("it has no stream, no subject or no sequence")
    return api.StoredMsg(stream, subject, seq, read_moment(said["Nats-Time-Stamp"]), data, MultiDict(own))


def _take_last(items: list[tuple[str, str]], name: str) -> str | None:
    for index in range(len(items) - 1, -1, -1):
        if items[index][0] == name:
            return items.pop(index)[1]
    return None


def _decoded(text: object) -> bytes:
    if text is None:
        return b""
    if not isinstance(text, str):
        raise ValueError("its data and headers must be text")
    return base64.b64decode(text, validate=True)


def one_message(call: str, seq: int | None, start_time: datetime | None, next_by_subj: str | None) -> dict[str, object]:
    """Make the request for one message, from a place on.

    Args:
        call: The call, for texts: "get_msg".
        seq: The sequence; with `next_by_subj`, where to begin.
        start_time: When it was stored, at the earliest.
        next_by_subj: What its subject matches; None for any.

    Raises:
        TypeError: An argument is of a wrong kind.
        ValueError: They exclude each other, or one cannot be meant.
    """
    request: dict[str, object] = {}
    if seq is not None and start_time is not None:
        raise ValueError(f"{call}: either seq or start_time, not both")
    if seq is not None:
        request["seq"] = _positive(call, "seq", seq)
    if start_time is not None:
        request["start_time"] = written_moment(call, "start_time", start_time)
    if next_by_subj is not None:
        request["next_by_subj"] = subjects.pattern(f"{call}: next_by_subj", next_by_subj)
    if not request:
        raise ValueError(f"{call}: one of seq, start_time and next_by_subj has to say where to begin")
    return request


def checked_stretch(
    stream: str,
    *,
    seq: int | None,
    start_time: datetime | None,
    next_by_subj: str | None,
    batch: int,
    max_bytes: int | None,
    replicated: bool,
) -> Stretch:
    """Make a `Stretch` of what a program gives; arguments and errors as for `one_message` and `Stretch`."""
    one_message("get_msgs", seq, start_time, next_by_subj)
    if max_bytes is not None:
        _positive("get_msgs", "max_bytes", max_bytes)
    return Stretch(
        stream,
        _positive("get_msgs", "batch", batch),
        seq=seq or 0,
        start_time=start_time,
        pattern=next_by_subj,
        max_bytes=max_bytes,
        replicated=replicated,
    )


def checked_latest(
    stream: str,
    filters: str | Sequence[str],
    *,
    up_to_seq: int | None,
    up_to_time: datetime | None,
    batch: int | None,
    replicated: bool,
) -> Latest:
    """Make a `Latest` of what a program gives; errors as for `one_message`."""
    call = "get_last_msgs"
    several = [filters] if isinstance(filters, str) else list(filters)
    if not several:
        raise ValueError(f"{call}: subjects must name one, at least")
    for one in several:
        subjects.pattern(f"{call}: subjects", one)
    if up_to_seq is not None and up_to_time is not None:
        raise ValueError(f"{call}: either up_to_seq or up_to_time, not both")
    if up_to_seq is not None:
        _positive(call, "up_to_seq", up_to_seq)
    if up_to_time is not None:
        written_moment(call, "up_to_time", up_to_time)
    if batch is not None:
        _positive(call, "batch", batch)
    return Latest(stream, several, up_to_seq=up_to_seq, up_to_time=up_to_time, batch=batch, replicated=replicated)


def _positive(call: str, name: str, number: int) -> int:
    fields.check_argument(call, name, int, number)
    if not 1 <= number <= LARGEST:
        raise ValueError(f"{call}: {name} is {number}: it must be 1 or more, and fit into 63 bits")
    return number


class Page:
    """The replies to one request for many messages.

    Args:
        stream: The stream that was asked.

    Attributes:
        messages: Those that came, whole as far as they go.
        announced: How many there were to come when it began, this page and those behind it.
        left: How many are to come behind it, where it has come to its end; else None.
        up_to: The last sequence that was looked at, in a page of last messages.
        nothing: It was said that there are none.
        stranger: The other stream that replied, or an empty string.
        refusal: The status and the text of a refusal.
        too_old: Whether the server sends single messages only.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._last = 0
        self.messages: list[api.StoredMsg] = []
        self.announced = 0
        self.left: int | None = None
        self.up_to = 0
        self.nothing = False
        self.stranger = ""
        self.refusal: tuple[int, str] | None = None
        self.too_old = False

    def received(self, status: int | None, description: str, headers: MultiDict[str], data: bytes) -> bool:
        """Take a reply.

        Args:
            status: Its status, None for a message.
            description: The text of the status.
            headers: Its headers.
            data: Its payload.

        Returns:
            Whether nothing more is wanted of this page.
        """
        if status is not None:
            self._end(status, description, headers)
            return True
        try:
            message = read_direct(headers, data, paged=True)
        except ValueError:
            return False  # somebody else's, or a badly made one: it will be missed
        if "Nats-Num-Pending" not in headers:
            self.too_old = not self.messages
            return self.too_old
        if message.stream != self._stream:
            self.stranger = message.stream
            return True
        if message.seq <= self._last:
            return False
        if _number(headers, "Nats-Last-Sequence") != self._last:
            return True  # one before it was lost
        if not self.messages:
            self.announced = _number(headers, "Nats-Num-Pending") + 1
        self.messages.append(message)
        self._last = message.seq
        return False

    def _end(self, status: int, description: str, headers: MultiDict[str]) -> None:
        if status == 404:
            self.nothing = not self.messages
        elif status != 204:
            self.refusal = status, description
        elif whole_number(headers, "Nats-Last-Sequence") == self._last:
            self.left = whole_number(headers, "Nats-Num-Pending")
            self.up_to = whole_number(headers, "Nats-UpTo-Sequence")


def _number(headers: MultiDict[str], name: str) -> int:
    return whole_number({name: headers.getall(name, [""])[-1]}, name)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds: a replica is behind."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for a page with this request, then tell `page`."""

    request: dict[str, object]


@dataclass(frozen=True, slots=True)
class Tail:
    """Ask the leader for the stream's last sequence, then tell `leader`."""


@dataclass(frozen=True, slots=True)
class Find:
    """Ask the leader for one message with this request, then tell `leader`."""

    request: dict[str, object]


#: What is to be done next; None is the end.
Step: TypeAlias = "Ask | Pause | Tail | Find | None"


class Trouble(enum.Enum):
    """Why a page has to be asked for again, and how often in a row that is done."""

    LOST = 5
    STRANGER = 32
    BEHIND = 14


@dataclass
class _Patience:
    """How often pages have come to nothing in a row."""

    what: str
    _met: dict[Trouble, int] = field(default_factory=dict)

    def forget(self) -> None:
        self._met.clear()

    def meet(self, trouble: Trouble, stranger: str = "") -> Pause | None:
        met = self._met[trouble] = self._met.get(trouble, 0) + 1
        if met > trouble.value:
            raise self._error(trouble, stranger)
        if trouble is not Trouble.BEHIND:
            return None
        return Pause(min(_SHORTEST_PAUSE * 2.0 ** (met - 1), _LONGEST_PAUSE))

    def _error(self, trouble: Trouble, stranger: str) -> errors.Error:
        if trouble is Trouble.BEHIND:
            return errors.explained(errors.TimeoutError, f"{self.what}: a replica does not catch up with its leader")
        if trouble is Trouble.LOST:
            return errors.explained(errors.Error, f"{self.what}: replies are lost again and again")
        text = f"{self.what}: the mirror {stranger!r} answers in its place, and may hold less; read that one, or ask elsewhere"
        return errors.explained(errors.Error, text)


def _check_page(what: str, page: Page) -> None:
    if page.too_old:
        text = f"{what}: the server does not know lists of messages (batch direct get, server 2.11)"
        raise errors.explained(errors.APIError, text, description=text, code=None, err_code=None, stream=None, seq=None)
    if page.refusal is not None:
        status, said = page.refusal
        kind: type[errors.APIError] = errors.BadRequestError if status in (400, 408) else errors.APIError
        text = said
        if status == 413:
            text += f": of more than {MOST_SUBJECTS} subjects; only a narrower filter or a lower up_to_seq helps"
        elif status == 408:
            text += "; is it older than 2.11?"
        known = {"code": status, "err_code": None, "stream": None, "seq": None}
        raise errors.explained(kind, f"{what}: {text} (code {status})", description=said, **known)


class _Listing(ABC):
    """What is read page by page: what is to be done next.

    Args:
        what: What is read, for texts.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._patience = _Patience(what)
        self._step: Step = None

    def next(self) -> Step:
        """Say what is to be done."""
        step = self._step
        if isinstance(step, Pause):
            self._ask()
        return step

    @abstractmethod
    def _ask(self) -> None:
        """Make the next page what is to be done."""


class Stretch(_Listing):
    """Messages of a stream from a place on, in their order.

    Args:
        stream: The stream.
        batch: How many, at the most.
        seq: Where to begin; 0 for the beginning, or for `start_time`.
        start_time: When what is wanted was stored, at the earliest.
        pattern: What their subjects match; None for all.
        max_bytes: No more are read once these are so many bytes; None for no limit.
        replicated: Whether the stream has several replicas.
    """

    def __init__(
        self,
        stream: str,
        batch: int,
        *,
        seq: int = 0,
        start_time: datetime | None = None,
        pattern: str | None = None,
        max_bytes: int | None = None,
        replicated: bool = False,
    ) -> None:
        super().__init__(f"messages of stream {stream!r}")
        self.messages: list[api.StoredMsg] = []
        self._left = batch
        self._position = max(seq, 1)
        self._start_time = start_time
        self._pattern = pattern
        self._bytes_left = max_bytes
        self._replicated = replicated
        self._mark: int | None = None
        self._ask()

    def page(self, page: Page) -> None:
        """Take a page.

        Args:
            page: As far as it came.

        Raises:
            trionats.errors.APIError: The server refused.
            nats.errors.Error: It came to nothing too often.
        """
        _check_page(self.what, page)
        messages = page.messages
        limited = self._bytes_left is not None and self._bytes_left <= PAGE_BYTES
        # Where it ended early and not for want of messages, it was for its bytes.
        short = len(messages) < min(self._left, PAGE_MESSAGES)
        if messages:
            self.messages += messages
            self._position, self._start_time = messages[-1].seq + 1, None
            self._left -= len(messages)
            self._patience.forget()
            if self._bytes_left is not None:
                self._bytes_left -= sum(map(_size, messages))
        if not self._left or (self._bytes_left is not None and self._bytes_left <= 0):
            self._step = None
        elif page.nothing or page.left == 0:
            self._at_the_end(page)
        elif page.left is None:
            self._again(page)
        elif limited and short:
            self._step = None
        else:
            self._ask()

    def leader(self, seq: int, time: datetime | None) -> None:
        """Learn the message that the leader was asked for: the last one that matches.

        Args:
            seq: Its sequence; 0 where there is none.
            time: When it was stored.

        Raises:
            nats.errors.TimeoutError: A replica has been behind it for too long.
        """
        self._mark = seq
        early = self._start_time is not None and time is not None and time < self._start_time
        self._step = None if seq < self._position or early else self._patience.meet(Trouble.BEHIND)

    # Inside.

    def _at_the_end(self, page: Page) -> None:
        proven = not page.nothing and not self._replicated
        if proven or (self._mark is not None and self._mark < self._position):
            self._step = None
        else:
            self._step = Find({"last_by_subj": self._pattern or ">"})

    def _again(self, page: Page) -> None:
        if page.stranger:
            self._patience.meet(Trouble.STRANGER, page.stranger)
        elif not page.messages:
            self._patience.meet(Trouble.LOST)
        self._ask()

    def _ask(self) -> None:
        request: dict[str, object] = {"batch": min(self._left, PAGE_MESSAGES)}
        bytes_left = PAGE_BYTES if self._bytes_left is None else self._bytes_left
        request["max_bytes"] = min(bytes_left, PAGE_BYTES)
        if self._start_time is None:
            request["seq"] = self._position
        else:
            request["start_time"] = written_moment("", "", self._start_time)
        if self._pattern is not None:
            request["next_by_subj"] = self._pattern
        self._step = Ask(request)


def _size(message: api.StoredMsg) -> int:
    headers = sum(len(name) + len(value) + 4 for name, value in message.headers.items())
    return len(message.subject) + len(message.data) + headers


class Latest(_Listing):
    """The last message of each of many subjects.

    Args:
        stream: The stream.
        filters: What the subjects match.
        up_to_seq: Of those up to this sequence; None for all.
        up_to_time: Of those that were stored until then; None for all.
        batch: How many, at the most; None for all.
        replicated: Whether the stream has several replicas.
    """

    def __init__(
        self,
        stream: str,
        filters: Sequence[str],
        *,
        up_to_seq: int | None = None,
        up_to_time: datetime | None = None,
        batch: int | None = None,
        replicated: bool = False,
    ) -> None:
        super().__init__(f"last messages of stream {stream!r}")
        self._filters = tuple(filters)
        self._batch = batch
        self._chosen = up_to_seq is not None or up_to_time is not None
        self._limit = up_to_seq
        self._replicated = replicated
        self._found: dict[str, api.StoredMsg] = {}
        self._least = 0
        self._position = self._up_to = 0
        self._expected = 0
        self._replaced = False
        self._unsure: list[str] = []
        if up_to_time is not None:
            self._step = Find({"start_time": written_moment("", "", up_to_time)})
        elif replicated or self._chosen:
            self._step = Tail()
        else:
            self._ask()

    @property
    def messages(self) -> list[api.StoredMsg]:
        """Those that were found, in the order of their sequences."""
        return sorted(self._found.values(), key=lambda message: message.seq)[: self._batch]

    def leader(self, seq: int, _time: datetime | None = None) -> None:
        """Learn what the leader was asked for; see `Stretch.leader`."""
        if isinstance(self._step, Tail):
            self._begin(seq)
        elif not self._unsure:  # it was the first message that is too late
            self._limit = seq - 1 if seq else None
            self._step = Tail()
        elif seq and (not self._up_to or seq <= self._up_to):
            self._step = self._patience.meet(Trouble.BEHIND)
        else:
            self._unsure.pop()
            self._doubt()

    def page(self, page: Page) -> None:
        """Take a page; see `Stretch.page`."""
        _check_page(self.what, page)
        if page.nothing:
            self._unsure = list(self._filters)
            self._doubt()
            return
        if page.left is not None and not self._up_to:
            if page.up_to < self._least:
                self._step = self._patience.meet(Trouble.BEHIND)
                return
            self._up_to = page.up_to
        if not self._up_to or not page.messages:
            # What is not known to be up to the leader's is not kept.
            self._patience.meet(Trouble.STRANGER if page.stranger else Trouble.LOST, page.stranger)
            self._ask()
            return
        self._keep(page)

    # Inside.

    def _begin(self, last: int) -> None:
        self._least = last if self._limit is None else min(last, self._limit)
        if self._chosen:
            self._up_to = self._least
        if self._least:
            self._ask()
        else:
            self._step = None

    def _keep(self, page: Page) -> None:
        self._patience.forget()
        for message in page.messages:
            self._found[message.subject] = message
        if page.announced < self._expected:
            self._replaced = True
        self._position = page.messages[-1].seq + 1
        self._expected = page.announced - len(page.messages)
        if page.left is not None and page.left < self._expected:
            self._replaced, self._expected = True, page.left
        if self._batch is not None and len(self._found) >= self._batch:
            self._step = None
        elif page.left == 0:
            self._finish()
        else:
            self._ask()

    def _doubt(self) -> None:
        """Ask the leader, filter by filter, whether there is really nothing from here on."""
        if self._unsure:
            self._step = Find({"seq": max(self._position, 1), "next_by_subj": self._unsure[-1]})
        else:
            self._replaced |= self._expected > 0
            self._finish()

    def _finish(self) -> None:
        if self._chosen or not self._replaced:
            self._step = None
            return
        # What took the place of those that were missed lies behind.
        self._position, self._up_to, self._expected, self._replaced = self._up_to + 1, 0, 0, False
        self._ask()

    def _ask(self) -> None:
        request: dict[str, object] = {"multi_last": list(self._filters), "max_bytes": PAGE_BYTES}
        if self._position:
            request["seq"] = self._position
        if self._up_to:
            request["up_to_seq"] = self._up_to
        if self._batch is not None:
            request["batch"] = self._batch - len(self._found)
        self._step = Ask(request)
