"""What an endpoint counts, and what is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats._told.moments import NANOSECONDS
from trionats.api import EndpointStats

if TYPE_CHECKING:
    from trionats._protocol.services.failures import Failure

__all__ = ["Tally"]


@final
class Tally:
    """The counters of one endpoint.

    Attributes:
        requests: How many requests came.
        errors: How many of them were answered with an error, refused, or given up.
        last_error: The last error, "code:description".
        expired: How many of them were too late, or became so while they were worked on: nobody waited any more.
        nanoseconds: How long those took together that were timed.
    """

    __slots__ = ("_timed", "errors", "expired", "last_error", "nanoseconds", "requests")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.requests = self.errors = self.expired = self.nanoseconds = self._timed = 0
        self.last_error = ""

    def failed(self, failure: Failure) -> None:
        """Count a request that failed."""
        self.errors += 1
        self.last_error = str(failure)

    def took(self, seconds: float) -> None:
        """Count how long a request took."""
        self.nanoseconds += round(max(seconds, 0.0) * NANOSECONDS)
        self._timed += 1

    def stats(self, name: str, subject: str, queue: str) -> EndpointStats:
        """Say what was counted.

        Args:
            name: The endpoint's name.
            subject: Where its requests go.
            queue: Its queue group.
        """
        average = self.nanoseconds // self._timed if self._timed else 0
        return EndpointStats(
            name=name,
            subject=subject,
            queue_group=queue,
            num_requests=self.requests,
            num_errors=self.errors,
            last_error=self.last_error,
            processing_time=self.nanoseconds,
            average_processing_time=average,
        )
