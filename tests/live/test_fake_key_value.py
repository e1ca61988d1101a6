"""The bucket of `tests.fake_jetstream` says what that of the real server says: the same requests, and the same answers."""

from __future__ import annotations

import json
from typing import Any

import trio

from tests.fake_jetstream import FakeKeyValue
from tests.worlds import open_world, until
from trionats import Client, api
from trionats.testing import TrioNatsServer

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
DEL = {"KV-Operation": "DEL"}
PURGE = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
SECOND = 1_000_000_000

#: What is published, one after the other: key, value, headers. Or what is asked of the stream: request, payload.
Step = tuple[str, bytes, dict[str, str]] | tuple[str, dict[str, Any]]
GETS: list[Step] = [
    ("DIRECT.GET", {"last_by_subj": "$KV.{b}.a"}),
    ("DIRECT.GET", {"last_by_subj": "$KV.{b}.>"}),
    ("DIRECT.GET", {"last_by_subj": "$KV.{b}.nothing"}),
    ("DIRECT.GET", {"seq": 1}),
    ("DIRECT.GET", {"seq": 2}),
    ("DIRECT.GET", {"seq": 3, "next_by_subj": "$KV.{b}.a"}),
    ("DIRECT.GET", {"seq": 99}),
    ("STREAM.MSG.GET", {"last_by_subj": "$KV.{b}.a"}),
    ("STREAM.MSG.GET", {"seq": 2}),
    ("STREAM.MSG.GET", {"seq": 99}),
    ("STREAM.MSG.GET", {"last_by_subj": "$KV.{b}.nothing"}),
]
CASES: dict[str, tuple[dict[str, Any], list[Step]]] = {
    "values": ({}, [("a", b"1", {}), ("a", b"2", {}), ("b", b"", {}), *GETS]),
    "a history": ({"history": 2}, [("a", b"1", {}), ("a", b"2", {}), ("a", b"3", {}), ("b", b"4", {}), *GETS]),
    "markers": (
        {"history": 5},
        [("a", b"1", {}), ("b", b"2", {}), ("a", b"", DEL), ("a", b"3", {}), ("a", b"", PURGE), *GETS],
    ),
    "compare and set": (
        {},
        [
            ("a", b"1", {EXPECTED: "0"}),
            ("a", b"1", {EXPECTED: "0"}),
            ("a", b"2", {EXPECTED: "1"}),
            ("a", b"2", {EXPECTED: "1"}),
            ("a", b"", {**DEL, EXPECTED: "2"}),
            ("a", b"", {**PURGE, EXPECTED: "2"}),
            ("a", b"", {**PURGE, EXPECTED: "3"}),
            *GETS,
        ],
    ),
    "no TTL": ({}, [("a", b"1", {"Nats-TTL": "5s"}), *GETS]),
    "purges": (
        {"history": 5},
        [
            *(("a", b"1", {}), ("b", b"2", {}), ("a", b"3", {}), ("a", b"4", {})),
            ("STREAM.PURGE", {"filter": "$KV.{b}.a", "keep": 1}),
            *GETS,
            ("STREAM.PURGE", {"filter": "$KV.{b}.a", "seq": 4}),
            ("STREAM.PURGE", {"filter": "$KV.{b}.a"}),
            *GETS,
        ],
    ),
}


async def answers(nc: Client, bucket: str, steps: list[Step]) -> list[object]:
    """Do all of it; give what was said, without what differs each time."""
    return [await answer(nc, bucket, step) for step in steps]


async def answer(nc: Client, bucket: str, step: Step) -> object:
    if len(step) == 3:
        key, value, headers = step
        reply = await nc.request(f"$KV.{bucket}.{key}", value, headers=headers)
    else:
        request, payload = step
        body = json.dumps(payload).replace("{b}", bucket)
        reply = await nc.request(f"$JS.API.{request}.KV_{bucket}", body.encode())
    headers = {name: text for name, text in reply.headers.items() if name != "Nats-Time-Stamp"}
    said = json.loads(reply.data) if reply.data.startswith(b"{") else reply.data.decode()
    if isinstance(said, dict):
        said.pop("type", None)
        said.get("message", {}).pop("time", None)
        # The text has the sequence behind it, which nobody reads.
        if "error" in said:
            said["error"].pop("description")
    return reply.status, headers, said


async def test_a_bucket_in_memory_answers_as_the_real_one(nats_server: TrioNatsServer) -> None:
    for name, (options, steps) in CASES.items():
        async with open_world(nats_server) as (_, nc, _):
            js = nc.jetstream()
            await js.create_key_value(bucket="faked", storage=api.StorageType.MEMORY, **options)
            try:
                real = await answers(nc, "faked", steps)
            finally:
                with trio.move_on_after(5, shield=True):
                    await js.delete_stream("KV_faked")
        async with open_world() as (server, nc, _):
            FakeKeyValue(server, "faked", **options)
            assert await answers(nc, "faked", steps) == real, name


async def test_what_expires_in_memory_leaves_what_it_leaves_in_the_real_one(nats_server: TrioNatsServer) -> None:
    steps: list[Step] = [
        ("a", b"1", {"Nats-TTL": "1s"}),
        ("b", b"2", {}),
        ("b", b"", {**PURGE, "Nats-TTL": "1s"}),
        ("c", b"3", {"Nats-TTL": "never"}),
    ]
    left: list[Step] = [("DIRECT.GET", {"last_by_subj": f"$KV.{{b}}.{key}"}) for key in "abc"]
    config: dict[str, Any] = {"allow_msg_ttl": True, "subject_delete_marker_ttl": 3.0, "max_msgs_per_subject": 1}
    async with open_world(nats_server) as (_, nc, _):
        js = nc.jetstream()
        more: dict[str, Any] = {
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "storage": "memory",
            "subjects": ["$KV.faked.>"],
        }
        await js.create_stream(name="KV_faked", **config, **more)
        try:
            real = await answers(nc, "faked", steps)

            async def marked() -> bool:
                return (await js.stream_info("KV_faked")).state.last_seq == 5

            await until(marked, pause=0.05)

            async def gone() -> bool:
                return (await js.stream_info("KV_faked")).state.messages == 2

            await until(gone, pause=0.05)
            real += await answers(nc, "faked", left)
        finally:
            with trio.move_on_after(5, shield=True):
                await js.delete_stream("KV_faked")
    async with open_world() as (server, nc, _):
        FakeKeyValue(server, "faked", limit_marker_ttl=3, timed=True)
        fake = await answers(nc, "faked", steps)
        await trio.sleep(1.5)
        assert fake + await answers(nc, "faked", left) == real
