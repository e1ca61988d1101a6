"""Which refusals pass by themselves, and which end a reader."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import errors
from trionats._protocol.jetstream.refusals import (
    GIVEN_UP_AFTER,
    Refusals,
    Retry,
    backoff,
    consumer_gone,
    is_consumer_missing,
    is_missing,
    passes,
)


@pytest.mark.parametrize(
    ("code", "err_code", "passing"),
    [
        (503, 10008, True),  # temporarily unavailable
        (503, 10076, True),  # JetStream not enabled, as a server says that is just starting
        (503, None, True),  # nobody answers
        (503, 10023, True),  # insufficient resources
        (429, 10167, True),  # too many requests
        (500, 10009, True),  # not the leader
        (500, 10007, True),  # not assigned
        (400, 10005, True),  # no peers
        (500, 10119, True),  # offline
        (503, 10039, False),  # JetStream not enabled for the account
        (503, 10035, False),  # no such account
        (400, 10026, False),  # maximum consumers
        (500, 10028, False),  # insufficient memory
        (400, 10002, False),  # limits of the account
        (400, None, False),
        (None, None, False),
        ([], {}, False),
        ("503", "10008", False),
    ],
)
def test_what_passes_by_itself(code: object, err_code: object, passing: bool) -> None:
    error = errors.explained(errors.APIError, "no", code=code, err_code=err_code)
    assert passes(error) is passing
    refusals = Refusals()
    retries = [refusals.judge(error) for _ in range(GIVEN_UP_AFTER)]
    assert (Retry.NEVER in retries) is not passing
    assert (Retry.AND_TELL in retries) is not passing


@pytest.mark.parametrize("error", [errors.TimeoutError(), errors.DisconnectedError(), errors.Error()])
def test_silence_is_no_refusal(error: Exception) -> None:
    assert passes(error)


@pytest.mark.parametrize("error", [errors.ConnectionClosedError(), errors.PermissionsViolationError()])
def test_what_is_of_no_use_to_try_again(error: Exception) -> None:
    assert Refusals(patient=True).judge(error) is Retry.NEVER


def test_a_stream_that_is_gone_may_come_back_for_who_is_patient() -> None:
    gone = errors.NotFoundError(code=404, err_code=10059)
    assert is_missing(gone)
    assert not is_missing(errors.NotFoundError(code=404, err_code=10014))
    assert is_consumer_missing(errors.NotFoundError(code=404, err_code=10014))
    assert not is_consumer_missing(gone)
    assert Refusals().judge(gone) is Retry.NEVER
    patient = Refusals(patient=True)
    assert [patient.judge(gone) for _ in range(5)] == [Retry.AGAIN] * 4 + [Retry.NEVER]
    patient.forget()
    assert patient.judge(gone) is Retry.AGAIN


@given(st.integers(0, 10_000), st.integers())
def test_backoff_grows_to_ten_seconds_and_is_jittered(failures: int, seed: int) -> None:
    longest = min(10.0, 0.05 * 2.0 ** min(failures, 20))
    assert longest / 2 <= backoff(failures, random.Random(seed)) <= longest


def test_a_consumer_that_is_gone_is_named_with_its_stream() -> None:
    error = consumer_gone("S", "C", "it was deleted", 10014)
    assert str(error) == "consumer 'C' of stream 'S': it was deleted"
    assert (error.stream, error.consumer, error.err_code, error.code) == ("S", "C", 10014, 404)
    assert isinstance(error, errors.NotFoundError)
