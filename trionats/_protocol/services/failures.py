"""The error responses of services (ADR-32), and which of them follows from what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from multidict import MultiDict

from trionats._protocol.services.words import ERROR, ERROR_CODE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["BUSY", "CANCELLED", "LATE", "STOPPED", "Failure", "failure", "failure_of", "parts"]


@final
class Failure(NamedTuple):
    """What is said of a request that failed.

    Attributes:
        code: A number, as text.
        description: What is wrong.
    """

    code: str
    description: str

    def __str__(self) -> str:
        return f"{self.code}:{self.description}"

    def headers(self, besides: Mapping[str, str | Sequence[str]] | None = None) -> MultiDict[Any]:
        """Give the headers of the response.

        Args:
            besides: Headers of the program's own.
        """
        headers: MultiDict[Any] = MultiDict(besides.items() if besides else ())
        headers[ERROR], headers[ERROR_CODE] = self.description, self.code
        return headers


BUSY: Final = Failure("503", "too many requests wait here")
STOPPED: Final = Failure("503", "this endpoint has stopped")
CANCELLED: Final = Failure("503", "cancelled")
LATE: Final = Failure("504", "nobody waits any more")


def failure(call: str, code: object, description: object) -> Failure:
    """Check what a program says of a request that failed.

    Args:
        call: Who is told, for texts: "respond_error".
        code: A number, or text.
        description: What is wrong.

    Raises:
        TypeError: One of them is of another kind.
        ValueError: One of them is empty, or takes more than a line.
    """
    if not isinstance(code, (int, str)) or isinstance(code, bool):
        raise TypeError(f"{call}: code must be a number or text, not {type(code).__name__}")
    if not isinstance(description, str):
        raise TypeError(f"{call}: description must be text, not {type(description).__name__}")
    text = code if isinstance(code, str) else int.__repr__(code)
    for field, value in (("code", text), ("description", description)):
        if not value.strip() or value.splitlines() != [value]:
            raise ValueError(f"{call}: {field} must be a line of text that is not empty")
    return Failure(text, description)


def failure_of(error: BaseException) -> Failure | None:
    """Say what is responded to a request whose handler raised: no more of it than what kind of error it is.

    Args:
        error: What it raised.

    Returns:
        The failure; None where nothing failed, but somebody ended it: cancelled, Ctrl-C.
    """
    if isinstance(error, Exception) or (isinstance(error, BaseExceptionGroup) and parts(error)[1] is not None):
        name = type(error).__name__
        # A class that was made by a call may be called anything, and not everything can stand in a header.
        return Failure("500", name if name.isidentifier() else "Exception")
    return None


def parts(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException | None, Exception | None]:
    """Divide a group into what ends a task, such as `Cancelled`, and what has failed.

    A handler with a nursery of its own may raise both at once, where one of its tasks fails while it is being cancelled.

    Args:
        group: What was raised.
    """
    ends, failed = group.split(lambda each: not isinstance(each, (Exception, BaseExceptionGroup)))
    if failed is None or isinstance(failed, Exception):
        return ends, failed
    # A class of groups of its own, that is none of `Exception` whatever is in it.
    return ends, ExceptionGroup(group.message, list(_each(failed)))


def _each(group: BaseExceptionGroup[BaseException]) -> Iterator[Exception]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _each(one)
        else:
            assert isinstance(one, Exception)
            yield one
