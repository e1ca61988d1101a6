"""Priority groups: which terms there are, and which consumer has them."""

from __future__ import annotations

from typing import Any

import pytest

from trionats._protocol.jetstream.consumers.priority import Terms


@pytest.mark.parametrize(
    ("terms", "kind", "text"),
    [
        ({"group": 7}, TypeError, "fetch: group must be text, not int"),
        ({"group": ""}, ValueError, "fetch: group must not be empty"),
        (
            {"priority": 1},
            ValueError,
            "fetch: priority is for a priority group of the policy 'prioritized': name the group",
        ),
        ({"min_pending": 1}, ValueError, "fetch: min_pending is for a priority group of the policy 'overflow': name"),
        ({"group": "g", "min_pending": 0}, ValueError, "fetch: min_pending is 0: it must be 1 or more"),
        ({"group": "g", "min_ack_pending": -1}, ValueError, "fetch: min_ack_pending is -1: it must be 1 or more"),
        ({"group": "g", "min_ack_pending": "1"}, TypeError, "fetch: min_ack_pending must be a whole number, not str"),
        ({"group": "g", "priority": 10}, ValueError, "fetch: priority is 10: it must be from 0 to 9"),
        ({"group": "g", "priority": -1}, ValueError, "fetch: priority is -1: it must be from 0 to 9"),
        (
            {"group": "g", "priority": 1, "min_pending": 1},
            ValueError,
            "fetch: priority is for the policy 'prioritized', min",
        ),
        (
            {"group": "g", "priority": 1, "min_ack_pending": 1},
            ValueError,
            "fetch: priority is for the policy 'prioritized', m",
        ),
    ],
)
def test_terms_that_cannot_be_are_refused_by_name(terms: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        Terms(**terms).check("fetch")
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("terms", "groups", "policy", "text"),
    [
        ({}, ["b", "a"], "overflow", "it has priority groups: say which, as in group='a'"),
        ({"group": "g"}, [], None, "group is 'g': it has no priority groups"),
        ({"group": "g"}, ["b", "a"], "overflow", "group is 'g': it has 'a', 'b'"),
        (
            {"group": "g", "priority": 1},
            ["g"],
            "overflow",
            "priority is for the policy 'prioritized'; that of it is 'overflow'",
        ),
        (
            {"group": "g", "min_pending": 1},
            ["g"],
            "pinned_client",
            "min_pending is for the policy 'overflow'; that of it is 'pi",
        ),
    ],
)
def test_terms_that_the_consumer_does_not_have_are_refused(
    terms: dict[str, Any], groups: list[str], policy: str | None, text: str
) -> None:
    with pytest.raises(ValueError, match=r"^next: ") as caught:
        Terms(**terms).check_against("next", "it", groups, policy)
    assert str(caught.value).startswith(f"next: {text}")


@pytest.mark.parametrize(
    ("terms", "groups", "policy"),
    [
        ({}, [], None),
        ({"group": "g"}, ["g"], "pinned_client"),
        ({"group": "g", "min_pending": 1, "min_ack_pending": 5}, ["g", "h"], "overflow"),
        ({"group": "g", "priority": 0}, ["g"], "prioritized"),
    ],
)
def test_terms_that_fit_stand_in_each_request(terms: dict[str, Any], groups: list[str], policy: str | None) -> None:
    made = Terms(**terms)
    made.check("fetch")
    made.check_against("fetch", "it", groups, policy)
    assert made.fields() == terms
