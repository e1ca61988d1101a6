"""The table of features: each row names a public name, and a test that exists and proves it."""

from __future__ import annotations

import ast
import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TABLES = sorted((ROOT / "docs" / "features").glob("*.csv"))
HEADER = ["section", "feature", "name", "test"]

#: What other clients have of JetStream, of services and around them: none of it may be missing from the tables.
OTHERS = {
    "1.11": (
        "domain / api prefix",
        "Account info incl. tiers, api.level",
        "Nats-Required-Api-Level (ADR-44, 2.12)",
        "API trace hooks",
        "Sync publish, PubAck{stream,seq,duplicate,domain,val,batch,count}",
        "Retry on 503 (ADR-22)",
        "Msg-Id dedupe",
        "Expectations",
        "Per-message TTL",
        "Rollup header",
        "Async publish + max pending + stall + complete",
        "Pending acks on disconnect",
        "Atomic batch (ADR-50, 2.12, level 2)",
        "Fast ingest (ADR-50, 2.14, level 4)",
        "Schedules (ADR-51, 2.12/2.14)",
        "Counters (ADR-49, 2.12)",
    ),
    "1.12": (
        "create/update/create-or-update/delete/get",
        "names/list paged, subject filter",
        "stream by subject",
        "info: deleted details, subjects filter with paging",
        "purge: filter / seq / keep (ADR-10)",
        "delete msg / secure delete (no_erase)",
        "get msg by seq, last_by_subj, next_by_subj; direct when allow_direct",
        "direct get by start_time (2.11)",
        "batch direct get (batch,max_bytes,multi_last,up_to_seq/time) 2.11",
        "all config fields",
        "info.mirror/sources lag",
        "alternates/best() (mirror nearest)",
        "advisories iterator",
        "snapshot",
        "restore",
        "leader stepdown",
        "peer remove",
    ),
    "1.13": (
        "create / update / create-or-update (action)",
        "Filter in subject when exactly one filter",
        "list/names/info/delete",
        "multi filters (2.10) + check echo",
        "pause/resume (2.11)",
        "reset (ADR-60, 2.14)",
        "fetch(n, max_wait, hb)",
        "fetch bytes / no_wait",
        "next",
        "consume (callback) / messages (iterator) with threshold refill",
        "byte-limit consume",
        "missing heartbeat → re-pull + report",
        "pause hb & re-pull on reconnect",
        "StopAfter n",
        "consume notifications (hb missed, deleted, limits, recreated, pinned)",
        "bind without INFO (cross-account)",
        "overflow: group, min_pending, min_ack_pending",
        "prioritized: priority 0-9 (2.12)",
        "pinned_client: Nats-Pin-Id echo as id; 423 clears; unpin",
        "ordered consumer, pull-based: every policy, named <prefix>_<serial>",
        "Ordered consumer, push-based",
        "Push consumers",
        "legacy subscribe workflow (durable lookup, queue…)",
        "Ack kinds: ack, double ack, nak with delay, in progress, term with reason",
        "Ack and next (+NXT)",
        "metadata v1 and v2",
    ),
    "1.14": (
        "create/bind/update/create-or-update/delete/list names/list status",
        "put / create / update(rev) / delete / purge",
        "create after delete/purge marker",
        "delete/purge with last revision",
        "TTL on create / purge (2.11)",
        "limit markers",
        "marker mapping",
        "unknown KV-Operation value",
        "get(rev) validates subject",
        "watch one/wildcard/all",
        "watch many filters (2.10)",
        "options: include_history, ignore_deletes, meta_only, updates_only, resume_from_revision",
        "end-of-initial signal, always sent",
        "history(key)",
        "keys / key lister / filtered server-side",
        "purge_deletes(older_than 30 min)",
        "status (values, history, ttl, bytes, compressed, metadata, marker ttl)",
        "config: description, max_value_size, max_bytes, storage, replicas, placement, republish, compression, metadata",
        "mirror / sources with auto transforms (ADR-57)",
        "API prefix/domain on puts (ADR-19)",
        "codecs key/value (ADR-54)",
        "read-only handle",
    ),
    "1.15": (
        "create/update/c-o-u/bind/delete/list names/list status",
        "put from reader/bytes/str/file",
        "pipelined chunk upload",
        "chunk size exact regardless of reader",
        "failure cleanup (purge own chunks)",
        "CAS on meta write",
        "old chunks purged after replace",
        "get streaming",
        "digest verified / size verified",
        "missing-chunk detection",
        "follows object link (same/other bucket); bucket link error",
        "info / show_deleted",
        "delete (marker + purge)",
        "update_meta + rename",
        "add_link / add_bucket_link",
        "seal / status / list / list incl. deleted",
        "watch: ignore_deletes, include_history, updates_only, marker",
        "TTL, placement, replicas, storage, metadata, compression, max_bytes",
        "object headers / metadata map",
        "progress reporting",
        "put/get file helpers",
    ),
    "1.16": (
        "name/version semver validation, id nuid, metadata, description",
        "PING/INFO/STATS on $SRV.V, .name, .name.id",
        "endpoints, groups (nested), endpoint metadata, subject override",
        "queue group on service/group/endpoint; disabled",
        "stats handler, reset, started",
        "respond / respond_error (Nats-Service-Error, -Code) ; handler exception → 500",
        "stop drains endpoints",
        "pending limits per endpoint",
        "concurrent request handling",
        "done/error handlers",
        "discovery client (ping, info, stats)",
        "prefix override ($SRV)",
        "parse foreign STATS",
    ),
    # Spans and metrics (OpenTelemetry) are the one feature of this section that is missing.
    "1.17": (
        "Message tracing helper Nats-Trace-Dest/-Only (ADR-41, 2.11)",
        "Test server helper",
        "Partitioned consumer groups",
        "$SYS client",
        "Trio / anyio support",
    ),
}


class Row(NamedTuple):
    """One feature."""

    section: str
    feature: str
    name: str
    test: str


def rows(table: Path) -> list[Row]:
    with table.open(newline="", encoding="utf-8") as lines:
        header, *found = csv.reader(lines)
    assert header == HEADER
    return [Row(*row) for row in found]


@cache
def names_in(path: str) -> frozenset[str]:
    """The tests of a file, without importing it: `name`, or `Class::name`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        within = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        functions = [each for each in within if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
        found |= {prefix + each.name for each in functions if each.name.startswith("test_")}
    return frozenset(found)


@pytest.mark.parametrize("table", TABLES, ids=[table.stem for table in TABLES])
def test_every_row_is_whole_and_names_a_test_that_exists(table: Path) -> None:
    for row in rows(table):
        assert all(field.strip() for field in row), row
        path, _, test = row.test.partition("::")
        assert (ROOT / path).is_file(), row
        assert test.partition("[")[0] in names_in(path), row


def test_no_feature_stands_twice() -> None:
    features = [(row.section, row.feature) for table in TABLES for row in rows(table)]
    assert len(features) == len(set(features))


def test_nothing_that_others_have_is_missing() -> None:
    plain = str.maketrans({"`": None, "\N{EN DASH}": "-"})
    there = {(row.section, row.feature.translate(plain)) for table in TABLES for row in rows(table)}
    wanted = {(section, feature) for section, features in OTHERS.items() for feature in features}
    assert wanted - there == set()


def test_each_idea_that_no_other_client_has_is_there() -> None:
    numbers = {row.feature.partition(":")[0] for row in rows(ROOT / "docs" / "features" / "ideas.csv")}
    assert numbers == {str(number) for number in range(1, 18)}


def test_the_page_shows_every_table() -> None:
    page = (ROOT / "docs" / "features.rst").read_text(encoding="utf-8")
    assert not [table.name for table in TABLES if f"features/{table.name}" not in page]
