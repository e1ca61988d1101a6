"""A member of a partitioned consumer group: what it does next, whatever becomes of its group and of its consumer."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import pytest

from trionats import api, errors
from trionats._protocol.jetstream.actions import Fail, Wait
from trionats._protocol.jetstream.partitions.assets import consumer_config, filters_of
from trionats._protocol.jetstream.partitions.groups import Place, Stored, wanted
from trionats._protocol.jetstream.partitions.member import (
    Create,
    Delete,
    Inspect,
    Look,
    Member,
    Read,
    Settle,
    Step,
    Tell,
)

STATIC, ELASTIC = Place("S", "g", elastic=False), Place("S", "g", elastic=True)


def stored(members: tuple[str, ...] = ("a", "b"), place: Place = ELASTIC, count: int = 4) -> Stored:
    return wanted("create_group", place, count, (), members, None, None, None)


def member(
    name: str = "a", *, members: tuple[str, ...] = ("a", "b"), place: Place = ELASTIC, tell: bool = False
) -> Member:
    made = Member(place, name, stored(members, place).group, 1, random.Random(0))
    if not tell:
        assert isinstance(made.next(0), Tell)
    return made


def info(filters: tuple[str, ...], pinned: str = "", place: Place = ELASTIC, **config: Any) -> api.ConsumerInfo:  # noqa: ANN401
    made = consumer_config(place, "a", filters).as_dict() | config
    return api.ConsumerInfo.from_response(
        {
            "name": "a",
            "stream_name": "S-g",
            "config": made,
            "created": "2026-11-29T12:00:00Z",
            "priority_groups": [{"group": "PCG", **({"pinned_client_id": pinned} if pinned else {})}],
        }
    )


def refused(err_code: int, code: int = 400, kind: type[errors.APIError] = errors.APIError) -> errors.APIError:
    known = {"code": code, "err_code": err_code, "description": "no", "stream": None, "seq": None}
    return errors.explained(kind, "no", **known)


def reading(*, place: Place = ELASTIC) -> Member:
    """A member that reads its consumer."""
    made = member(place=place)
    made.next(0)
    made.found(info(filters_of(stored(place=place).group, "a"), place=place), "", 0)
    assert made.next(0) == Read()
    return made


def changed(to: Member, *members: str, revision: int = 2) -> None:
    to.stored(stored(members).data, revision)


def test_the_first_member_creates_its_consumer_once_it_knows_that_the_configuration_is_the_last() -> None:
    m = member(tell=True)
    assert m.next(0) == Tell((0, 1))
    assert m.next(0) == Inspect()
    m.found(None, "", 0)
    assert m.next(0) == Look()
    m.looked(stored().data, 1)
    assert m.next(0) == Create(("0.>", "1.>"))
    m.created()
    assert m.next(0) == Read()
    assert m.next(0) == Wait(inf)


def test_a_consumer_that_is_there_is_read_whoever_created_it() -> None:
    m = member()
    m.next(0)
    m.found(info(("1.>", "0.>"), "somebody", max_ack_pending=1000), "", 0)
    assert m.next(0) == Read()


def test_a_single_filter_may_stand_in_either_field() -> None:
    m = member(members=("a", "b", "c", "d"))
    m.next(0)
    m.found(info((), filter_subject="0.>", filter_subjects=None), "", 0)
    assert m.next(0) == Read()


def test_who_is_no_member_waits_and_is_told_when_it_is_one() -> None:
    m = member("c", tell=True)
    assert m.next(0) == Tell(())
    assert m.next(0) == Wait(inf)
    changed(m, "a", "b", "c")
    assert m.next(0) == Tell((2,))
    assert m.next(0) == Inspect()


def test_partitions_change_hands_by_a_new_consumer_once_what_is_held_is_settled() -> None:
    m = reading()
    changed(m, "a", "b", "c")
    assert m.next(0) == Tell((0, 3))
    assert m.next(0) == m.next(0) == Settle()
    m.settled()
    assert m.next(0) == Inspect()
    m.found(info(("0.>", "1.>"), "me"), "me", 0)
    assert m.next(0) == Delete()
    m.released()
    assert m.next(0) == Look()
    m.looked(stored(("a", "b", "c")).data, 2)
    assert m.next(0) == Create(("0.>", "3.>"))


def test_a_member_that_keeps_its_partitions_goes_on_reading() -> None:
    m = member("b", members=("a", "b"))
    m.next(0)
    m.found(info(("2.>", "3.>")), "", 0)
    assert m.next(0) == Read()
    changed(m, "B", "b")
    assert m.next(0) == Wait(inf)


def test_an_older_configuration_changes_nothing() -> None:
    m = reading()
    m.stored(stored(("z",)).data, 1)
    m.deleted(1)
    assert m.next(0) == Wait(inf)


def test_a_member_that_is_dropped_deletes_its_consumer_and_waits() -> None:
    m = reading()
    changed(m, "b")
    assert m.next(0) == Tell(())
    assert m.next(0) == Settle()
    m.settled()
    assert m.next(0) == Inspect()
    m.found(info(("0.>", "1.>"), "me"), "me", 0)
    assert m.next(0) == Delete()
    m.released()
    assert m.next(0) == Wait(inf)


def test_one_that_is_not_pinned_leaves_the_consumer_of_a_dropped_member_to_the_one_that_is() -> None:
    m = reading()
    changed(m, "b")
    m.next(0)
    m.settled()
    m.next(0)
    m.found(info(("0.>", "1.>"), "another"), "me", 0)
    assert m.next(0) == Wait(inf)


def test_one_that_is_not_pinned_waits_for_the_one_that_is_and_not_for_ever() -> None:
    m = reading()
    changed(m, "a", "b", "c")
    m.next(0)
    m.settled()
    now = 10.0
    looks = 0
    while (step := m.next(now)) != Delete():
        if isinstance(step, Wait):
            assert now < step.until <= now + 0.5
            now = step.until
        else:
            assert step == Inspect()
            m.found(info(("0.>", "1.>"), "another"), "", now)
            looks += 1
    assert 16 <= now <= 16.6
    assert looks > 10


def test_one_that_is_not_pinned_reads_what_the_pinned_one_has_created() -> None:
    m = reading()
    changed(m, "a", "b", "c")
    m.next(0)
    m.settled()
    m.found(info(("0.>", "1.>"), "another"), "", 0)
    assert m.next(1) == Inspect()
    m.found(info(("0.>", "3.>")), "", 1)
    assert m.next(1) == Read()


def test_what_another_has_not_let_go_of_is_asked_for_again_soon() -> None:
    m = member()
    m.found(None, "", 0)
    m.looked(stored().data, 1)
    now, pauses = 0.0, []
    for _ in range(6):
        assert isinstance(m.next(now), Create)
        m.failed(refused(10100), now)
        wait = m.next(now)
        assert isinstance(wait, Wait)
        pauses.append(wait.until - now)
        now = wait.until
        # Meanwhile it may be another's again.
        assert m.next(now) == Look()
        m.looked(stored().data, 1)
    assert pauses[0] <= 0.05
    assert max(pauses) <= 0.5


@pytest.mark.parametrize("number", [10148, 10105, 10013])
def test_a_consumer_that_somebody_else_has_created_is_looked_at(number: int) -> None:
    m = member()
    m.found(None, "", 0)
    m.looked(stored().data, 1)
    m.next(0)
    m.failed(refused(number), 0)
    assert m.next(0) == Inspect()


def test_a_change_while_it_looks_begins_anew() -> None:
    m = member()
    m.found(None, "", 0)
    m.looked(stored(("a",)).data, 2)
    assert m.next(0) == Tell((0, 1, 2, 3))
    assert m.next(0) == Inspect()
    m.found(None, "", 0)
    m.looked(stored(("a",)).data, 2)
    assert m.next(0) == Create(("0.>", "1.>", "2.>", "3.>"))


def test_a_change_while_it_settles_holds_when_it_has() -> None:
    m = reading()
    changed(m, "a", "b", "c")
    changed(m, "a", revision=3)
    assert [m.next(0), m.next(0), m.next(0)] == [Tell((0, 3)), Tell((0, 1, 2, 3)), Settle()]
    m.settled()
    m.found(info(("0.>", "1.>"), "me"), "me", 0)
    assert m.next(0) == Delete()
    changed(m, "b", revision=4)
    assert m.next(0) == Tell(())
    m.released()
    assert m.next(0) == Wait(inf)


def test_an_elastic_consumer_that_is_gone_is_looked_for_and_created_again() -> None:
    m = reading()
    m.gone(refused(10014, 404, errors.NotFoundError))
    assert m.next(0) == Inspect()
    m.gone(refused(10014, 404, errors.NotFoundError))  # said twice
    m.found(None, "", 0)
    assert m.next(0) == Look()


def test_a_static_consumer_that_is_gone_ends_it_unless_the_group_is_gone_too() -> None:
    gone = refused(10014, 404, errors.ConsumerGoneError)
    m = reading(place=STATIC)
    m.gone(gone)
    assert m.next(0) == Look()
    m.looked(stored(place=STATIC).data, 1)
    assert m.next(0) == m.next(0) == Fail(gone)
    m = reading(place=STATIC)
    m.gone(gone)
    m.deleted(0)
    assert isinstance(failure(m.next(0)), errors.GroupNotFoundError)


def failure(step: Step) -> Exception:
    assert isinstance(step, Fail)
    return step.error


def test_a_group_that_is_deleted_ends_it() -> None:
    m = reading()
    m.deleted(2)
    error = failure(m.next(0))
    assert isinstance(error, errors.GroupNotFoundError)
    assert str(error) == "elastic group 'g' of stream 'S': it was deleted"


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"[]", "its configuration is no JSON object"), (stored(count=5).data, "max_members is another one than it was")],
)
def test_a_change_that_cannot_be_ends_it_and_lets_go_first(data: bytes, text: str) -> None:
    m = reading()
    m.stored(data, 2)
    assert m.next(0) == Settle()
    m.settled()
    assert m.next(0) == Inspect()
    m.found(info(("0.>", "1.>"), "me"), "me", 0)
    assert m.next(0) == Delete()
    m.released()
    error = failure(m.next(0))
    assert isinstance(error, errors.GroupChangedError)
    assert text in str(error)


def test_a_change_that_cannot_be_leaves_the_consumer_to_the_pinned_one() -> None:
    m = reading()
    m.stored(b"[]", 2)
    m.settled()
    m.found(info(("0.>", "1.>"), "another"), "", 0)
    assert isinstance(failure(m.next(0)), errors.GroupChangedError)


def test_a_change_that_cannot_be_while_it_lets_go_ends_it_after_that() -> None:
    m = reading()
    changed(m, "a", "b", "c")
    m.stored(b"[]", 3)
    m.next(0)
    assert m.next(0) == Settle()
    m.settled()
    m.found(None, "", 0)
    assert isinstance(failure(m.next(0)), errors.GroupChangedError)


def test_a_change_that_cannot_be_before_it_reads_ends_it_at_once() -> None:
    m = member()
    m.stored(b"[]", 2)
    assert isinstance(failure(m.next(0)), errors.GroupChangedError)


def test_any_change_ends_a_static_member() -> None:
    m = reading(place=STATIC)
    m.stored(stored(("a", "c"), STATIC).data, 2)
    assert m.next(0) == Settle()
    m.settled()
    m.found(info(("0.>", "1.>"), "me", STATIC), "me", 0)
    assert m.next(0) == Delete()
    m.released()
    assert "members is another one than it was" in str(failure(m.next(0)))


def test_a_static_member_deletes_no_consumer_of_the_group_that_came_after() -> None:
    m = reading(place=STATIC)
    m.stored(stored(("a",), STATIC).data, 2)
    m.settled()
    m.found(info(("0.>", "1.>", "2.>", "3.>"), "", STATIC), "me", 0)
    assert "members is another one than it was" in str(failure(m.next(0)))


def test_a_static_member_leaves_a_consumer_alone_that_reads_something_else() -> None:
    m = member(place=STATIC)
    m.found(info(("7.>",), "", STATIC), "", 0)
    error = failure(m.next(0))
    assert isinstance(error, errors.GroupChangedError)
    assert "consumer 'g-a' reads other subjects: it is another one's" in str(error)


def test_a_consumer_without_the_priority_group_is_made_anew() -> None:
    m = member()
    unpinned = info(("0.>", "1.>"), priority_groups=None, priority_policy=None)
    m.found(unpinned, "", 0)
    m.found(unpinned, "", 1)
    assert m.next(1) == Delete()


def test_a_consumer_that_nobody_is_pinned_at_is_deleted_once_all_have_heard() -> None:
    m = reading()
    changed(m, "a", "b", "c")
    m.next(0)
    m.settled()
    now, nobodys = 10.0, info(("0.>", "1.>"))
    m.found(nobodys, "", now)
    assert isinstance(m.next(now), Wait)
    m.found(nobodys, "", now + 0.2)
    assert isinstance(m.next(now + 0.2), Wait)
    m.found(nobodys, "", now + 0.3)
    assert m.next(now + 0.3) == Delete()


def test_what_passes_is_waited_for_and_what_does_not_ends_it() -> None:
    m = member()
    m.failed(errors.TimeoutError(), 0)
    assert isinstance(m.next(0), Wait)
    assert m.next(1) == Inspect()
    m.failed(refused(10008, 503, errors.ServiceUnavailableError), 1)
    assert isinstance(m.next(1), Wait)
    forbidden = errors.PermissionsViolationError("no")
    m.failed(forbidden, 2)
    assert m.next(2) == Fail(forbidden)
    m.failed(errors.TimeoutError(), 3)
    assert m.next(4) == Fail(forbidden)


def test_a_stream_that_is_gone_ends_it_unless_the_group_is_gone_too() -> None:
    missing = refused(10059, 404, errors.NotFoundError)
    m = member()
    m.failed(missing, 0)
    assert m.next(0) == Look()
    changed(m, "a")  # said by the watcher
    m.next(0)
    m.looked(stored(("a",)).data, 2)
    assert m.next(0) == Fail(missing)
    m = member()
    m.failed(missing, 0)
    m.failed(missing, 0)
    assert m.next(0) == Fail(missing)


def test_what_was_deleted_when_the_bucket_is_looked_at_is_gone() -> None:
    m = member()
    m.found(None, "", 0)
    m.deleted(0)
    assert isinstance(failure(m.next(0)), errors.GroupNotFoundError)
