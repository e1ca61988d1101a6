"""Management of streams and consumers against a scripted server: what is not sent, and what odd answers end in."""

from __future__ import annotations

import copy
import json
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest
import trio

from tests.fakes import FakeServer, Frame
from tests.worlds import open_world
from trionats import JetStream, api, errors

pytestmark = pytest.mark.usefixtures("autojump_clock")


Call: TypeAlias = "Callable[[Any], Coroutine[Any, Any, object]]"

CREATED = "2026-11-28T17:00:00.123456789Z"
STREAM: dict[str, Any] = json.loads("""{
    "type": "io.nats.jetstream.api.v1.stream_info_response", "created": "2026-11-28T17:00:00.123456789Z", "domain": "d",
    "config": {
        "name": "S", "subjects": ["s.>"], "retention": "limits", "storage": "file", "num_replicas": 3, "max_consumers": -1,
        "max_age": 60000000000, "duplicate_window": 60000000000, "consumer_limits": {"inactive_threshold": 1000000000},
        "placement": {"cluster": "c", "tags": ["a"]}, "metadata": {"k": "v"}, "subject_transform": {"src": "a", "dest": "b"},
        "sources": [
            {"name": "O", "external": {"api": "$JS.o.API"}, "subject_transforms": [{"src": "a", "dest": "b"}]},
            {"name": "P", "opt_start_time": "2026-11-28T17:00:00.123456789Z"}
        ],
        "republish": {"src": "a", "dest": "b", "headers_only": true}
    },
    "state": {
        "messages": 1, "bytes": 10, "first_seq": 1, "last_seq": 3, "consumer_count": 1,
        "deleted": [2], "lost": {"msgs": [2], "bytes": 5}, "subjects": {"s.a": 1}
    },
    "cluster": {"name": "c", "leader": "n1", "replicas": [{"name": "n2", "current": true, "active": 5}]},
    "sources": [{"name": "O", "lag": 0, "active": 1, "error": {"code": 1}}]
}""")
CONSUMER: dict[str, Any] = json.loads("""{
    "stream_name": "S", "name": "c", "created": "2026-11-28T17:00:00.123456789Z", "num_pending": 5,
    "config": {
        "name": "c", "deliver_policy": "by_start_time", "opt_start_time": "2026-11-28T17:00:00.123456789Z",
        "ack_policy": "explicit", "ack_wait": 30000000000, "backoff": [1000000000],
        "filter_subjects": ["a", "b"], "metadata": {"k": "v"}
    },
    "delivered": {"consumer_seq": 1, "stream_seq": 1, "last_active": "2026-11-28T17:00:00.123456789Z"},
    "ack_floor": {"consumer_seq": 0, "stream_seq": 0}, "cluster": {"leader": "n1"}
}""")
MESSAGE = {"subject": "s.a", "seq": 3, "data": "YQ==", "hdrs": "TkFUUy8xLjANCkE6IDENCg0K", "time": CREATED}
LIMITS = {f"max_{what}": -1 for what in ("memory", "storage", "streams", "consumers", "ack_pending")}
LIMITS |= {"memory_max_stream_bytes": -1, "storage_max_stream_bytes": -1}
TIER = {"memory": 0, "storage": 0, "streams": 1, "consumers": 0, "limits": {**LIMITS, "max_bytes_required": False}}
ACCOUNT = {**TIER, "domain": "d", "api": {"total": 1, "errors": 0}, "tiers": {"R1": TIER}}
#: A stream that is a bucket of either kind, whichever is asked for.
BUCKET = {
    **STREAM,
    "config": {**STREAM["config"], "max_msgs_per_subject": 1, "subjects": ["$KV.b.>", "$O.b.C.>", "$O.b.M.>"]},
}
DONE = {"success": True}
ACK = {"stream": "S", "seq": 4, "domain": "d", "duplicate": False, "batch": "b", "count": 2, "val": "5"}

#: Each call, with a real answer to it.
CALLS: dict[str, tuple[Call, dict[str, Any]]] = {
    "account_info": (lambda js: js.account_info(), ACCOUNT),
    "find_stream_name_by_subject": (lambda js: js.find_stream_name_by_subject("s.a"), {"total": 1, "streams": ["S"]}),
    "stream_info": (lambda js: js.stream_info("S"), STREAM),
    "stream_names": (lambda js: js.stream_names(), {"total": 1, "offset": 0, "limit": 1024, "streams": ["S"]}),
    "add_stream": (lambda js: js.add_stream(name="S"), STREAM),
    "update_stream": (lambda js: js.update_stream(name="S", max_age=60, duplicate_window=60), STREAM),
    "delete_stream": (lambda js: js.delete_stream("S"), DONE),
    "purge_stream": (lambda js: js.purge_stream("S"), {**DONE, "purged": 3}),
    "streams_info": (lambda js: js.streams_info(), {"total": 1, "offset": 0, "limit": 256, "streams": [STREAM]}),
    "consumer_info": (lambda js: js.consumer_info("S", "c"), CONSUMER),
    "add_consumer": (lambda js: js.add_consumer("S", name="c", filter_subjects=["a", "b"]), CONSUMER),
    "update_consumer": (lambda js: js.update_consumer("S", name="c", description="d"), CONSUMER),
    "create_consumer": (lambda js: js.create_consumer("S", name="c", filter_subjects=["a", "b"]), CONSUMER),
    "delete_consumer": (lambda js: js.delete_consumer("S", "c"), DONE),
    "pause_consumer": (
        lambda js: js.pause_consumer("S", "c", CREATED),
        {"paused": True, "pause_until": CREATED, "pause_remaining": 5},
    ),
    "resume_consumer": (lambda js: js.resume_consumer("S", "c"), {"paused": False}),
    "reset_consumer": (lambda js: js.reset_consumer("S", "c"), {**CONSUMER, "reset_seq": 5}),
    "consumers_info": (lambda js: js.consumers_info("S"), {"total": 1, "offset": 0, "consumers": [CONSUMER]}),
    "get_msg": (lambda js: js.get_msg("S", 3), {"message": MESSAGE}),
    "delete_msg": (lambda js: js.delete_msg("S", 3), DONE),
    "create_key_value": (lambda js: js.create_key_value(bucket="b"), BUCKET),
    "key_value": (lambda js: js.key_value("b"), BUCKET),
    "update_key_value": (lambda js: js.update_key_value(bucket="b", ttl=30), BUCKET),
    "delete_key_value": (lambda js: js.delete_key_value("b"), DONE),
    "create_object_store": (lambda js: js.create_object_store("b"), BUCKET),
    "object_store": (lambda js: js.object_store("b"), BUCKET),
    "update_object_store": (lambda js: js.update_object_store("b", ttl=30), BUCKET),
    "delete_object_store": (lambda js: js.delete_object_store("b"), DONE),
    "publish": (lambda js: js.publish("s.a", b""), ACK),
}
ABSENT = object()
LISTS: list[Any] = [[], [None], [5], ["text"], [[]], [{}]]
ODD: list[Any] = [ABSENT, None, True, {}, {"a": None}, {"a": 5}, *LISTS]
ODD += [5, -1, 1.5, 10**30, 10**400, float("nan"), float("inf"), "text", "", "9999-99-99T99:99:99Z", "\ud800"]


@asynccontextmanager
async def answering(
    answer: Callable[[Frame], object], *, level: int | None = None
) -> AsyncIterator[tuple[JetStream, FakeServer]]:
    async with open_world() as (server, nc, _):
        if level is not None:
            server.on("$JS.API.INFO", lambda _: {"api": {"level": level}})
        server.on("$JS.API.>", answer)
        server.on("s.a", answer)
        yield nc.jetstream(), server


def paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value, from the top down."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        yield from paths(inner, (*path, key))


def replaced(answer: dict[str, Any], path: tuple[Any, ...], odd: object) -> bytes:
    made: Any = copy.deepcopy(answer)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    if odd is ABSENT:
        del holder[path[-1]]
    else:
        holder[path[-1]] = odd
    return json.dumps(made).encode()


def well_formed(result: object) -> bool:
    """Say whether a result is what the annotations promise where it counts: names, states and lists."""
    match result:
        case list():
            return all(map(well_formed, result))
        case api.StreamInfo():
            numbers = (result.state.messages, result.state.last_seq, result.state.bytes)
            return isinstance(result.config, api.StreamConfig) and all(type(number) is int for number in numbers)
        case api.ConsumerInfo():
            return isinstance(result.name, str) and isinstance(result.config, api.ConsumerConfig)
        case api.PubAck():
            return isinstance(result.stream, str) and type(result.seq) is int
        case api.AccountInfo():
            return isinstance(result.limits, api.AccountLimits) and type(result.streams) is int
    return result is None or not isinstance(result, (dict, int)) or isinstance(result, bool)


def level_for(name: str) -> int | None:
    """The level that is told besides; where it is what is asked for, it is part of the answer."""
    return None if name == "account_info" else 5


@pytest.mark.parametrize("name", CALLS)
async def test_an_odd_response_ends_in_a_value_or_in_an_error_of_ours(name: str) -> None:
    """Each field of a real answer, replaced by each thing that it is not."""
    call, real = CALLS[name]
    now = b""
    outcomes = {"value": 0, "error": 0}
    async with answering(lambda _: now, level=level_for(name)) as (js, _):
        now = json.dumps(real).encode()
        assert well_formed(await call(js)), "the real answer is read"
        for path in paths(real):
            for odd in ODD:
                now = replaced(real, path, odd)
                try:
                    assert well_formed(await call(js)), (path, odd)
                except errors.APIError as error:
                    complaint = str(error)
                    outcomes["error"] += 1
                    assert re.search(
                        "JetStream response|not found|refused|did not take its filters|is none: its subjects|is none: it has",
                        complaint,
                    )
                    assert len(complaint) < 400
                else:
                    outcomes["value"] += 1
    assert outcomes["error"], "odd enough"


NO_RESPONSES = [
    *(b"", b"x", b"\xff\xfe", b"null", b"5", b'"text"', b"[]", b"[" * 100_000, b'{"config":' * 100_000),
    b'{"seq":' + b"9" * 5000 + b"}",
    *(b"{}", b'{"error":null}', b'{"error":5}', b'{"error":"text"}', b'{"error":[]}', b'{"error":{}}'),
    b'{"error":{"code":"404"}}',
    b'{"error":{"code":[],"err_code":{},"description":5}}',
    b'{"error":{"code":404,"surprise":true}}',
    b'{"error":{"code":503}}',
]


@pytest.mark.parametrize("name", CALLS)
async def test_a_response_that_is_none_is_an_error_that_says_what_was_asked(name: str) -> None:
    call, _ = CALLS[name]
    now = b""
    async with answering(lambda _: now, level=level_for(name)) as (js, _):
        for now in NO_RESPONSES:
            if now == b"{}" and name in ("streams_info", "consumers_info", "stream_names"):
                assert await call(js) == []  # nothing is listed where there is nothing
                continue
            with pytest.raises(errors.APIError) as caught:
                await call(js)
            assert "code None" not in str(caught.value)
            assert "error None" not in str(caught.value)
            assert len(str(caught.value)) < 400


async def test_a_list_that_does_not_end_as_it_says_ends() -> None:
    for total in ("NaN", "1e400", '"5"', "null"):
        page = b'{"total":%b,"streams":[%b]}' % (total.encode(), json.dumps(STREAM).encode())
        async with answering(lambda _, page=page: page) as (js, _):  # type: ignore[misc]
            with pytest.raises(errors.APIError, match=r"STREAM\.LIST: .*its total a whole number"):
                await js.streams_info()


# -- wrong configurations ----------------------------------------------------------------------------------------------


def store(*args: Any, **params: Any) -> Call:  # noqa: ANN401 - what they should not be
    return lambda js: js.create_object_store("b", *args, **params)


def stream(*args: Any, **params: Any) -> Call:  # noqa: ANN401 - what they should not be
    return lambda js: js.add_stream(*args, **{"name": "S", **params})


def update(**params: Any) -> Call:  # noqa: ANN401 - what they should not be
    return lambda js: js.update_stream(name="S", **params)


def consumer(*args: Any, **params: Any) -> Call:  # noqa: ANN401 - what they should not be
    return lambda js: js.add_consumer("S", *args, **params)


def create(**params: Any) -> Call:  # noqa: ANN401 - what they should not be
    return lambda js: js.create_consumer("S", **params)


A_NUMBER = r"must be a number of seconds, not str"
SIX: Any = "6"
OF_WRONG_KIND: list[tuple[Call, str]] = [
    (store(ttl="6"), rf"ObjectStoreConfig\.ttl {A_NUMBER}"),
    (store(api.ObjectStoreConfig(ttl=SIX)), r"ObjectStoreConfig\.ttl"),
    (store(replicas="3"), r"ObjectStoreConfig\.replicas must be a whole number"),
    (store(placement="c"), r"ObjectStoreConfig\.placement must be a Placement"),
    (lambda js: js.create_stream("S"), r"config must be a StreamConfig, not str; a name goes by keyword: name="),
    (lambda js: js.create_key_value("b"), r"config must be a KeyValueConfig, not str; a name goes by keyword: bucket="),
    (store({"ttl": 5}), r"create_object_store: config must be an ObjectStoreConfig, not dict"),
    (store(foo=1), r"create_object_store\(\) has no option 'foo'"),
    (store(replica=1), r"did you mean 'replicas'\?"),
    (store(timeout=1), r"deadlines are cancel scopes"),
    (stream(max_age="6"), rf"StreamConfig\.max_age {A_NUMBER}"),
    (lambda js: js.add_stream(api.StreamConfig("S", max_age=SIX)), r"StreamConfig\.max_age"),
    (stream(consumer_limits=api.StreamConsumerLimits(SIX)), r"StreamConfig\.consumer_limits\.inactive_threshold"),
    (stream(subjects="s.>"), r"StreamConfig\.subjects must be a list, not str"),
    (stream(max_ages=6), r"add_stream\(\) has no option 'max_ages': did you mean 'max_age'\?"),
    (stream(name=5), r"StreamConfig\.name must be text, not int"),
    (update(duplicate_window="6"), r"StreamConfig\.duplicate_window"),
    (update(subject_delete_marker_ttl="6"), r"StreamConfig\.subject_delete_marker_ttl"),
    (consumer(ack_wait="6"), rf"ConsumerConfig\.ack_wait {A_NUMBER}"),
    (consumer(api.ConsumerConfig(ack_wait=SIX)), r"ConsumerConfig\.ack_wait"),
    (consumer(inactive_threshold="6"), r"ConsumerConfig\.inactive_threshold"),
    (consumer(idle_heartbeat="6"), r"ConsumerConfig\.idle_heartbeat"),
    (consumer(backoff=["6"]), r"ConsumerConfig\.backoff\[0\]"),
    (consumer(timeout=5), r"add_consumer\(\) has no option 'timeout'"),
    (lambda js: js.add_consumer(5, name="c"), r"stream 5: it must be text, not int"),
    (lambda js: js.stream_info(None), r"stream None: it must be text, not NoneType"),
    (lambda js: js.stream_info("S", 5), r"stream_info: subjects_filter must be text, not int"),
    (lambda js: js.purge_stream("S", seq="5"), r"purge_stream: seq must be a whole number, not str"),
    (lambda js: js.purge_stream("S", keep=True), r"purge_stream: keep must be a whole number, not bool"),
    (lambda js: js.purge_stream("S", subject=5), r"purge_stream: subject must be text, not int"),
    (lambda js: js.stream_names(5), r"stream_names: subject must be text, not int"),
    (lambda js: js.streams_info(subject=5), r"streams_info: subject must be text, not int"),
    (lambda js: js.stream_info("S", None, "yes"), r"stream_info: deleted_details must be True or False, not str"),
    (
        lambda js: js.create_or_update_stream(name="S", max_ages=5),
        r"create_or_update_stream\(\) has no option 'max_ages'",
    ),
    (lambda js: js.create_stream({"name": "S"}), r"config must be a StreamConfig, not dict"),
    (lambda js: js.get_msg("S", "5"), r"get_msg: seq"),
    (lambda js: js.get_msg("S", 5, direct="yes"), r"get_msg: direct must be True or False, not str"),
    (lambda js: js.get_msg("S", 5, next=1), r"get_msg: next must be True or False, not int"),
    (lambda js: js.consumer("S", "c", bind=1), r"consumer: bind must be True or False, not int"),
    (lambda js: js.delete_msg("S", None), r"delete_msg: seq"),
    (lambda js: js.reset_consumer("S", "c", "5"), r"reset_consumer: seq"),
    (lambda js: js.pause_consumer("S", "c", 5), r"pause_consumer: pause_until must be a datetime, not int"),
    (lambda js: js.unpin_consumer("S", "c", 5), r"unpin_consumer: a priority group must be text, not int"),
    (lambda js: js.streams_info("5"), r"streams_info: offset"),
    (lambda js: js.consumers_info("S", "5"), r"consumers_info: offset"),
    (lambda js: js.api_request("INFO", {"x": b""}), r"INFO: Object of type bytes"),
]
OF_WRONG_VALUE: list[tuple[Call, str]] = [
    (lambda js: js.purge_stream("S", seq=0), r"purge_stream: seq is 0: it is at least 1"),
    (lambda js: js.purge_stream("S", keep=-1), r"purge_stream: keep is -1: it is at least 0"),
    (lambda js: js.purge_stream("S", seq=5, keep=2), r"purge_stream: either seq \(5\) or keep \(2\), not both"),
    (lambda js: js.update_stream(max_age=5), r"stream '': it is empty"),
    (lambda js: js.create_or_update_stream(max_age=5), r"stream '': it is empty"),
    (store(ttl=-1), r"ObjectStoreConfig\.ttl is -1"),
    (stream(max_age=float("nan")), r"StreamConfig\.max_age"),
    (lambda js: js.add_stream(subjects=["s"]), r"stream '': it is empty"),
    (consumer(name="a.b"), r"consumer 'a\.b'"),
    (lambda js: js.api_request("INFO", {"x": float("inf")}), r"INFO: "),
    (consumer(name="a", durable_name="b"), r"add_consumer: name is 'a' and durable_name 'b': they are one"),
    (consumer(filter_subject="a", filter_subjects=["b"]), r"either filter_subject or filter_subjects, not both"),
    (create(deliver_subject="d"), r"create_consumer: deliver_subject is for push consumers.*open_consumer"),
    (create(max_deliver=2, backoff=[1, 2, 3]), r"create_consumer: backoff has 3 steps, more than max_deliver \(2\)"),
    (lambda js: js.consumer("S", "a.b", bind=True), r"consumer 'a\.b'"),
    (lambda js: js.get_msg("S", -1), r"get_msg: seq is -1: sequences begin at 1"),
    (lambda js: js.delete_msg("S", -1), r"delete_msg: seq is -1: sequences begin at 1"),
    (lambda js: js.reset_consumer("S", "c", 0), r"reset_consumer: seq is 0: sequences begin at 1"),
    (lambda js: js.pause_consumer("S", "c", "soon"), r"pause_consumer: pause_until is 'soon': no RFC 3339 time"),
    (lambda js: js.pause_consumer("S", "c", datetime(2030, 1, 1)), r"pause_until has no time zone"),
    (lambda js: js.unpin_consumer("S", "c", "a b"), r"priority group 'a b': a name has 1 to 16 of"),
    (lambda js: js.update_consumer("S", name=""), r"consumer '': it is empty"),
]


@pytest.mark.parametrize(
    ("call", "text", "kind"),
    [(*row, TypeError) for row in OF_WRONG_KIND] + [(*row, ValueError) for row in OF_WRONG_VALUE],
)
async def test_what_cannot_be_is_refused_before_anything_is_sent(call: Call, text: str, kind: type[Exception]) -> None:
    async with answering(lambda _: None) as (js, server):
        tracemalloc.start()
        try:
            with pytest.raises(kind, match=text):
                await call(js)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000, "nothing is multiplied"
        assert not server.sent("PUB")


async def test_what_is_below_the_first_sequence_is_nothing_and_no_server_is_asked() -> None:
    """Servers up to 2.14.0 would purge everything."""
    async with answering(lambda _: {"success": True, "purged": 3}) as (js, server):
        assert await js.purge_stream("S", seq=1)
        assert await js.purge_stream("S", seq=1, subject="s.a")
        assert not server.sent("PUB")
        assert await js.purge_stream("S", seq=2)
        assert len(server.sent("PUB")) == 1


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda js: js.purge_stream("S", subject="a..b"), ValueError, r"purge_stream: subject: .*'a\.\.b'"),
        (lambda js: js.stream_info("S", "a b"), ValueError, "stream_info: subjects_filter: .*'a b'"),
        (lambda js: js.stream_names(""), ValueError, "stream_names: subject: .*it is empty"),
        (lambda js: js.add_stream(name="S", subjects=["s", "a b"]), ValueError, r"add_stream: subjects: .*'a b'"),
        (lambda js: js.delete_msg("S", 0), ValueError, "delete_msg: seq is 0: sequences begin at 1"),
    ],
)
async def test_a_pattern_that_is_none_is_refused_too(call: Call, kind: type[Exception], said: str) -> None:
    async with answering(lambda _: None) as (js, server):
        with pytest.raises(kind, match=said):
            await call(js)
        assert not server.sent("PUB")


async def test_a_stream_that_somebody_creates_meanwhile_is_changed() -> None:
    answers: list[Any] = [
        {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}},
        {"error": {"code": 400, "err_code": 10058, "description": "stream name already in use"}},
        STREAM,
    ]
    async with answering(lambda _: answers.pop(0)) as (js, server):
        assert (await js.create_or_update_stream(name="S")).name == "S"
        verbs = [frame.subject.split(".")[3] for frame in server.sent("PUB")]
        assert verbs == ["UPDATE", "CREATE", "UPDATE"]


async def test_another_refusal_of_a_change_is_no_reason_to_create() -> None:
    for code, number in ((404, 10014), (500, 10052)):
        refused = {"error": {"code": code, "err_code": number, "description": "no"}}
        async with answering(lambda _, refused=refused: refused) as (js, server):  # type: ignore[misc]
            with pytest.raises(errors.APIError, match=f"stream 'S': no .*{number}"):
                await js.create_or_update_stream(name="S")
            assert len(server.sent("PUB")) == 1


async def test_subjects_that_go_between_two_pages_hide_none_of_the_others() -> None:
    """As if the server gave three at once."""
    there = [f"s.{letter}" for letter in "abcdefgh"]

    def page(frame: Frame) -> object:
        offset = json.loads(frame.payload).get("offset", 0)
        some = there[offset : offset + 3]
        if len(there) == 8:
            there.remove("s.a")
        state = {**STREAM["state"], "subjects": dict.fromkeys(some, 1)}
        return {**STREAM, "state": state, "total": len(there), "offset": offset, "limit": 3}

    async with answering(page) as (js, _):
        info = await js.stream_info("S", "s.*")
        assert set(info.state.subjects or ()) >= set(there)
        assert not info.extra.keys() & {"total", "offset", "limit"}


@pytest.mark.parametrize(
    ("told", "nearest"),
    [
        (None, "S"),
        ([], "S"),
        ([("M", "here"), ("S", "there")], "M"),
        ([("M", "here"), ("N", "here"), ("S", "there")], "M"),
        ([("M", "here"), ("S", "here")], "S"),
        ([("S", "here"), ("M", "there")], "S"),
    ],
)
async def test_the_nearest_stream_is_the_one_in_the_nearest_cluster(
    told: list[tuple[str, str]] | None, nearest: str
) -> None:
    def info(frame: Frame) -> object:
        name = frame.subject.rpartition(".")[2]
        alternates = None if told is None else [{"name": one, "cluster": cluster} for one, cluster in told]
        return {**STREAM, "config": {"name": name}, "alternates": alternates}

    async with answering(info) as (js, _):
        stream = await js.stream("S")
        found = await stream.nearest()
        assert found.name == nearest
        assert (found is stream) == (nearest == "S")


async def test_who_does_not_respond_to_a_list_hides_nobody_else() -> None:
    """In a cluster the servers that lead are asked; a page names whoever kept silent, and counts it."""
    names = [f"S{number}" for number in range(7)]
    asked = []

    def page(frame: Frame) -> object:
        asked.append(offset := json.loads(frame.payload)["offset"])
        here = names[offset : offset + 3]
        infos = [{**STREAM, "config": {"name": name}} for name in here if name not in ("S1", "S2")]
        return {"total": 7, "offset": offset, "streams": infos, "missing": [n for n in here if n in ("S1", "S2")][::-1]}

    async with answering(page) as (js, _):
        assert [info.config.name for info in await js.streams_info()] == ["S0", "S3", "S4", "S5", "S6"]
    assert asked == [0, 2, 4]


@pytest.mark.parametrize("traced", [True, False])
async def test_requests_and_responses_are_told_to_the_log(traced: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG" if traced else "INFO", "trionats.jetstream")
    async with answering(lambda _: STREAM) as (js, _):
        await js.stream_info("S")
    records = [record for record in caplog.records if record.name == "trionats.jetstream"]
    assert [record.getMessage().partition(":")[0] for record in records] == [
        "request to $JS.API.STREAM.INFO.S",
        "response from $JS.API.STREAM.INFO.S",
    ] * traced
    for record in records:
        told = vars(record)
        assert told["api_subject"] == "$JS.API.STREAM.INFO.S"
    if traced:
        assert json.loads(vars(records[1])["api_payload"])["config"]["name"] == "S"
        assert vars(records[1])["api_seconds"] >= 0


async def test_the_two_forms_of_a_configuration_are_one() -> None:
    async with answering(lambda _: STREAM) as (js, server):
        await js.add_stream(name="S", subjects=["s"], max_age=1)
        await js.add_stream(api.StreamConfig("S", subjects=["s"]), max_age=1)
        first, second = (json.loads(frame.payload) for frame in server.sent("PUB"))
        assert first == second
        assert first["max_age"] == 1_000_000_000


async def test_filters_that_a_server_leaves_out_are_an_error_and_no_consumer_of_everything() -> None:
    """Servers before 2.10 do not know several, and do not say so."""
    plain = {**CONSUMER, "config": {"name": "c"}}
    for action, deleted in (("create_consumer", True), ("add_consumer", False)):
        async with answering(lambda _: plain) as (js, server):
            with pytest.raises(
                errors.APIError, match=r"consumer 'c' of stream 'S': .*several of them need server 2\.10"
            ):
                await getattr(js, action)("S", name="c", filter_subjects=["a", "b"])
            assert bool(server.sent("PUB", "$JS.API.CONSUMER.DELETE.S.c")) is deleted


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda js: js.pause_consumer("S", "c", CREATED), r"pausing consumers needs a server of 2\.11"),
        (lambda js: js.unpin_consumer("S", "c", "g"), r"unpinning needs a server of 2\.11"),
        (lambda js: js.reset_consumer("S", "c"), r"resetting consumers needs a server of 2\.14"),
        (lambda js: js.create_consumer("S", name="c", pause_until=CREATED), r"pause_until needs a server of 2\.11"),
    ],
)
async def test_an_old_server_is_not_asked_for_what_it_would_not_answer(call: Call, text: str) -> None:
    async with answering(lambda _: CONSUMER, level=0) as (js, server):
        with pytest.raises(errors.APIError, match=f"consumer 'c' of stream 'S': {text}"):
            await call(js)
        assert [frame.subject for frame in server.sent("PUB")] == ["$JS.API.INFO"]


async def test_a_direct_get_in_the_form_of_old_servers_is_read() -> None:
    lines = {"Stream": "S", "Subject": "s.a", "Sequence": 3, "Time-Stamp": "2022-11-09 17:42:33.123456789 +0000 UTC"}
    block = "".join(f"Nats-{name}: {value}\r\n" for name, value in lines.items())
    async with open_world() as (server, nc, _):
        answer = f"NATS/1.0\r\n{block}\r\n".encode()
        server.on("$JS.API.DIRECT.GET.S", lambda frame: server.publish(frame.reply, b"x", headers=answer) and None)
        found = await nc.jetstream().get_msg("S", 3, direct=True)
        assert found.time == datetime(2022, 11, 9, 17, 42, 33, 123456, UTC)


async def test_a_server_without_lists_of_messages_is_said_to_be_too_old() -> None:
    """It answers with one message, and no word of how many are left."""
    block = "".join(
        f"Nats-{name}: {value}\r\n" for name, value in {"Stream": "S", "Subject": "s.a", "Sequence": 3}.items()
    )
    async with open_world() as (server, nc, _):
        server.on("$JS.API.STREAM.INFO.S", lambda _: STREAM)
        answer = f"NATS/1.0\r\n{block}Nats-Time-Stamp: {CREATED}\r\n\r\n".encode()
        server.on("$JS.API.DIRECT.GET.S", lambda frame: server.publish(frame.reply, b"x", headers=answer) and None)
        stream = await nc.jetstream().stream("S")
        with pytest.raises(errors.APIError, match=r"messages of stream 'S': .*server 2\.11"):
            await stream.get_msgs(seq=1, batch=3)


async def test_a_list_goes_on_behind_a_connection_that_broke() -> None:
    async with open_world() as (server, nc, _):
        one_replica = {**STREAM, "config": {**STREAM["config"], "num_replicas": 1}}
        server.on("$JS.API.STREAM.INFO.S", lambda _: one_replica)
        asked: list[int] = []

        def answer(frame: Frame) -> None:
            first = json.loads(frame.payload)["seq"]
            asked.append(first)
            for seq in range(first, 5):
                told = {"Stream": "S", "Subject": "s.a", "Sequence": seq, "Time-Stamp": CREATED}
                told |= {"Num-Pending": 4 - seq, "Last-Sequence": seq - 1 if seq > first else 0}
                lines = "".join(f"Nats-{name}: {value}\r\n" for name, value in told.items())
                server.publish(frame.reply, b"x", headers=f"NATS/1.0\r\n{lines}\r\n".encode())
                if seq == 2:
                    server.cut()
                    return
            end = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 4\r\n\r\n"
            server.publish(frame.reply, headers=end)

        server.on("$JS.API.DIRECT.GET.S", answer)
        stream = await nc.jetstream().stream("S")
        assert [msg.seq for msg in await stream.get_msgs(seq=1, batch=9)] == [1, 2, 3, 4]
        assert asked == [1, 3], "from where it was"


async def test_a_list_that_nobody_answers_is_an_error_and_not_empty() -> None:
    async with open_world() as (server, nc, _):
        server.on("$JS.API.STREAM.INFO.S", lambda _: STREAM)
        server.on("$JS.API.DIRECT.GET.S", lambda _: None)
        stream = await nc.jetstream().stream("S")
        with pytest.raises(errors.TimeoutError, match="messages of stream 'S': no answer in time"):
            await stream.get_msgs(seq=1, batch=3)
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await stream.get_msgs(seq=1, batch=3)
