"""Names on their way to the wire: what passes, what is refused, and what the refusal says."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trionats import errors
from trionats._protocol import subjects

Check = Callable[[Any], object]

PUBLISHABLE = [
    *("a", "a.b.c", "$JS.API.STREAM.INFO.KV_x", "_INBOX.0123456789ABCDEFGHIJKL.7"),
    *("grüße.日本.🙂", "a-b_c/d\\e=f:g", "x" * 4096),
    *("A\u00a0b", "a\u2028b"),  # not white space to the server
]
MALFORMED = {
    "it is empty": [""],
    "white space": [" ", "a b", "a\tb", "a\r\nPUB b 0\r\n", "a\n"],
    "control characters": ["a\x00b", "a\x0bb", "a\x7fb"],
    "empty tokens": [".", ".a", "a.", "a..b"],
    "not valid Unicode": ["a.\ud800"],
}
WILDCARDS = ["*", ">", "a.*", "a.>", "*.*", "a.*.b", "*.>", "a.*.*.>"]
MISPLACED = ["a*", "*a.b", "a.b*c", "a>", ">.a", "a.>.b", ">>", "**", "a.*>", "*.a>"]


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a.*", "a.b", True),
        ("a.*", "a.*", True),
        ("a.*", "a.>", False),
        ("a.b", "a.*", False),
        ("*.b", "a.*", False),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a.*", True),
        ("a.>", "a.>", True),
        ("a.>", "a", False),
        ("a.*.>", "a.>", False),
        (">", "a.>", True),
        (">", ">", True),
        ("*.*", "a.>", False),
    ],
)
def test_which_patterns_cover_others(wide: str, narrow: str, expected: bool) -> None:
    assert (subjects.widest([wide, narrow]) == [wide]) is expected
    assert (subjects.widest([narrow, wide]) == [wide]) is expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], []),
        (["a", "a"], ["a"]),
        (["a.b", "a.*", "c"], ["a.*", "c"]),
        (["a.*", "*.b"], ["a.*", "*.b"]),
        (["a.>", "b", ">"], [">"]),
        (["*.>", "a.>", "a.*", "*"], ["*.>", "*"]),
        (["a.*.c", "*.b.c", "a.b.c", "a.b"], ["a.*.c", "*.b.c", "a.b"]),
    ],
)
def test_patterns_that_others_cover_are_left_out(patterns: list[str], expected: list[str]) -> None:
    assert subjects.widest(patterns) == expected


def test_thousands_of_patterns_are_compared_in_a_moment() -> None:
    many = [
        f"{first}.{number}.{last}" for number in range(5000) for first, last in (("a", "b"), ("*", "c"), ("d", ">"))
    ]
    before = time.process_time()
    assert subjects.widest(many) == many
    assert subjects.widest([*many, ">"]) == [">"]
    assert time.process_time() - before < 5  # each compared with each takes minutes


@pytest.mark.parametrize("subject", PUBLISHABLE)
def test_a_plain_subject_is_for_publishing_and_for_subscribing(subject: str) -> None:
    assert subjects.publish_subject(subject) == subject.encode()
    assert subjects.subscribe_subject(subject) == subject.encode()
    assert subjects.inbox_prefix(subject) == subject


@pytest.mark.parametrize(("subject", "words"), [(each, words) for words, many in MALFORMED.items() for each in many])
@pytest.mark.parametrize("check", [subjects.publish_subject, subjects.subscribe_subject, subjects.inbox_prefix])
def test_a_malformed_subject_is_refused_by_name(check: Check, subject: str, words: str) -> None:
    with pytest.raises(errors.BadSubjectError, match=words) as caught:
        check(subject)
    assert repr(subject) in str(caught.value)


@pytest.mark.parametrize("subject", WILDCARDS)
def test_wildcards_are_for_subscribing_only(subject: str) -> None:
    assert subjects.subscribe_subject(subject) == subject.encode()
    with pytest.raises(errors.BadSubjectError, match="wildcards are for subscriptions only"):
        subjects.publish_subject(subject)
    with pytest.raises(errors.BadSubjectError, match="wildcards are not allowed"):
        subjects.inbox_prefix(subject)


@pytest.mark.parametrize("subject", MISPLACED)
def test_a_wildcard_in_the_wrong_place_is_refused(subject: str) -> None:
    with pytest.raises(errors.BadSubjectError, match="a wildcard is a whole token, and '>' the last one"):
        subjects.subscribe_subject(subject)
    with pytest.raises(errors.BadSubjectError, match="wildcards"):
        subjects.publish_subject(subject)


ENDLESS = ["." * 100_000, "a." * 100_000, "*." * 100_000 + "**", "a" * 100_000 + " ", "a" * 1_000_000 + " "]


@pytest.mark.parametrize("subject", ENDLESS, ids=len)
def test_an_endless_subject_is_refused_without_backtracking_and_shown_in_part(subject: str) -> None:
    for check, kind in ((subjects.publish_subject, "publish"), (subjects.subscribe_subject, "subscribe")):
        with pytest.raises(errors.BadSubjectError, match=f"^{kind} to '{re.escape(subject[:4])}") as caught:
            check(subject)
        assert len(str(caught.value)) < 300


@given(st.text())
@example("a\r\n")
@example("a.b\n")
@example("a\ud800")
def test_whatever_passes_is_one_word_without_empty_tokens(subject: str) -> None:
    for check in (subjects.publish_subject, subjects.subscribe_subject):
        try:
            encoded = check(subject)
        except errors.BadSubjectError:
            continue
        assert encoded.decode() == subject
        assert not re.search(rb"[\x00-\x20\x7f]", encoded)
        assert all(encoded.split(b"."))


BAD_TOKENS = ["", "a b", "a.b", "a*", ">", "a/b", "a\\b", "a\n", "\x00", "\x7f", "\ud800", "a\r\nPUB x 0\r\n"]
BAD_BUCKETS = ["", "a b", "a.b", "configs\n", "a*", ">", "grüße", "٣", "a/b", "\ud800"]
BAD_NAMES: list[tuple[Check, str, type[Exception], str, list[str]]] = [
    (subjects.queue_name, "queue group", errors.BadSubjectError, "it is empty", [""]),
    (subjects.queue_name, "queue group", errors.BadSubjectError, "white space", ["a b", "a\r\n"]),
    (subjects.queue_name, "queue group", errors.BadSubjectError, "control", ["\x01"]),
    (subjects.queue_name, "queue group", errors.BadSubjectError, "Unicode", ["\udfff"]),
    (subjects.bucket_name, "bucket", errors.InvalidBucketNameError, "bucket", BAD_BUCKETS),
    (subjects.stream_name, "stream", ValueError, "not allowed|empty|Unicode", BAD_TOKENS),
    (subjects.consumer_name, "consumer", ValueError, "not allowed|empty|Unicode", BAD_TOKENS),
]


@pytest.mark.parametrize(("check", "kind", "error", "words", "names"), BAD_NAMES)
def test_a_bad_name_is_refused_by_name(
    check: Check, kind: str, error: type[Exception], words: str, names: list[str]
) -> None:
    for name in names:
        with pytest.raises(error, match=words) as caught:
            check(name)
        assert str(caught.value).startswith(f"{kind} {name!r}: ")


@pytest.mark.parametrize(("check", "kind"), [(subjects.stream_name, "stream"), (subjects.consumer_name, "consumer")])
@pytest.mark.parametrize("name", [None, 5, b"s"])
def test_a_stream_or_consumer_name_that_is_no_text_is_refused_by_name(check: Check, kind: str, name: object) -> None:
    with pytest.raises(TypeError, match=f"^{kind} .*: it must be text, not {type(name).__name__}$"):
        check(name)


def test_a_single_filter_stands_in_the_subject_that_creates_a_consumer() -> None:
    for pattern in ("a", "a.*.>", ">", "*"):
        subject = subjects.consumer_creation("S", "c", pattern)
        assert subject == f"CONSUMER.CREATE.S.c.{pattern}"
        assert subjects.publish_subject(subject) == subject.encode()
    for none in (None, "", ["a"], "x" * 3001, "ä" * 1501):
        assert subjects.consumer_creation("S", "c", none) == "CONSUMER.CREATE.S.c"
    for bad in ("a b", "a..b", "a.>.b", "a*", "a\r\nPUB x 0\r\n", "\ud800"):
        with pytest.raises(errors.BadSubjectError):
            subjects.publish_subject(subjects.consumer_creation("S", "c", bad))


GOOD_TOKENS = ["OBJ_configs", "KV-1", "grüße", "$x", "a:b"]


@pytest.mark.parametrize(
    ("check", "names"),
    [
        (lambda name: subjects.queue_name(name).decode(), ["q", "workers.eu", "*", "grüße"]),
        (subjects.bucket_name, ["configs", "A-b_9", "0", "-", "_"]),
        (subjects.stream_name, GOOD_TOKENS),
        (subjects.consumer_name, GOOD_TOKENS),
    ],
)
def test_a_good_name_passes(check: Check, names: list[str]) -> None:
    assert list(map(check, names)) == names


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a", ["a"], ["b", "A", "a.b"]),
        ("a.b", [], ["a"]),
        ("*", ["a"], ["a.b"]),
        ("a.*", ["a.b"], ["a"]),
        ("a.*.c", ["a.b.c"], ["a.b.d"]),
        (">", ["a", "a.b.c"], []),
        ("a.>", ["a.b", "a.b.c"], ["a", "b.c"]),
        ("*.>", ["a.b.c"], ["a"]),
        ("*.b.>", [], ["a.c.d"]),
    ],
)
def test_which_subjects_a_pattern_matches(pattern: str, matching: list[str], others: list[str]) -> None:
    assert [subject for subject in matching + others if subjects.matches(pattern, subject)] == matching


tokens = st.text("ab", min_size=1, max_size=2)


@given(
    pattern=st.lists(tokens | st.just("*"), min_size=1, max_size=4).map(".".join),
    rest=st.sampled_from(["", ".>"]),
    subject=st.lists(tokens, min_size=1, max_size=5).map(".".join),
)
def test_matching_agrees_with_a_regular_expression(pattern: str, rest: str, subject: str) -> None:
    expression = re.escape(pattern).replace(r"\*", "[^.]+") + (r"\..+" if rest else "")
    assert subjects.matches(pattern + rest, subject) is bool(re.fullmatch(expression, subject))


def test_nuids_are_unique_share_no_beginning_and_have_all_letters_about_equally_often() -> None:
    nuid = subjects.Nuid(random.Random(1832))
    names = [nuid.next() for _ in range(100_000)]
    assert all(re.fullmatch("[0-9A-Za-z]{22}", name) for name in names[:200])
    assert {len(name) for name in names} == {22}
    assert len({name[:8] for name in names}) == len(names)
    # The end is as random as the beginning: nothing counts up.
    assert len({name[-8:] for name in names}) == len(names)
    letters = Counter("".join(names[:5_000]))
    assert len(letters) == 62
    assert max(letters.values()) < 1.5 * min(letters.values())


def test_nuids_are_the_random_source_s() -> None:
    first, second, third = (subjects.Nuid(random.Random(seed)) for seed in (1, 1, 2))
    names = [first.next() for _ in range(200)]
    assert names == [second.next() for _ in range(200)]
    assert not set(names) & {third.next() for _ in range(200)}


def test_a_pattern_is_refused_by_the_name_of_its_argument() -> None:
    assert subjects.pattern("purge: subject", "a.*.>") == "a.*.>"
    with pytest.raises(ValueError, match=r"^purge: subject: .*'a b'"):
        subjects.pattern("purge: subject", "a b")
    with pytest.raises(TypeError, match=r"^purge: subject must be text, not int$"):
        subjects.pattern("purge: subject", 5)  # type: ignore[arg-type]


def test_a_domain_is_one_token() -> None:
    assert subjects.domain_name("hub") == "hub"
    for name in ("", "a.b", "*", "a b"):
        with pytest.raises(ValueError, match=r"JetStream domain '.*': it must be one token"):
            subjects.domain_name(name)
    with pytest.raises(TypeError, match="JetStream domain 5: it must be text"):
        subjects.domain_name(5)  # type: ignore[arg-type]
