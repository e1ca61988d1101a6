"""Medians, and what the project promised about them."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple


class Summary(NamedTuple):
    """The medians of one client's runs of one scenario; seconds for each operation."""

    scenario: str
    client: str
    runs: int
    cpu: float
    wall: float
    megabytes_per_second: float | None
    lost: int
    errors: int


class Ratio(NamedTuple):
    """What was promised: ours divided by another's is at most the bound."""

    scenario: str
    other: str
    measure: str
    bound: float
    value: float


RATIOS = (
    ("subscribe", "natsio", "cpu", 0.6),
    ("subscribe", "nats-py-callback", "cpu", 0.8),
    ("publish", "natsio", "cpu", 0.8),
    ("request", "nats-py", "cpu", 0.7),
    ("request", "nats-py-trio-asyncio", "cpu", 0.35),
    ("consume", "natsio", "cpu", 0.85),
    ("consume", "nats-py", "cpu", 0.5),
    ("consume", "nats-py-push", "cpu", 0.5),
    ("fetch", "natsio", "cpu", 0.85),
    ("fetch", "nats-py", "cpu", 0.5),
    # A throughput of so many times another's is a wall time of so many parts of it.
    ("put", "natsio", "wall", 1 / 1.5),
    ("put", "nats-py", "wall", 1 / 1.5),
    ("put", "natsio", "cpu", 0.85),
    ("get", "natsio", "wall", 1 / 1.3),
    ("get", "nats-py", "wall", 1 / 50),
    ("get", "natsio", "cpu", 0.85),
    ("pool", "trionats-10", "cpu", 1.5),
    ("publish_pipelined", "natsio", "cpu", 0.85),
    ("publish_pipelined", "nats-py", "cpu", 0.5),
    ("ingest", "natsio-batch", "cpu", 0.85),
    ("kv_get", "natsio", "cpu", 0.85),
    ("kv_put", "natsio", "cpu", 0.85),
    ("snapshot", "natsio", "wall", 1 / 1.2),
    ("snapshot", "nats-py", "wall", 1 / 1.2),
    ("service", "natsio", "cpu", 0.85),
)


def summaries(runs: list[dict[str, Any]]) -> list[Summary]:
    """Put the runs of each scenario and client together; those that failed have no times."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        grouped.setdefault((run["scenario"], run["client"]), []).append(run)
    return [_summary(scenario, client, those) for (scenario, client), those in grouped.items()]


def _summary(scenario: str, client: str, runs: list[dict[str, Any]]) -> Summary:
    good = [run for run in runs if run["done"] and not run["error"]]
    cpu, wall = (median(run[what] / run["done"] for run in good) if good else 0.0 for what in ("cpu", "wall"))
    megabytes = good[0].get("megabytes") if good else None
    speed, lost = (megabytes / wall if megabytes and wall else None), sum(run["lost"] for run in good)
    return Summary(scenario, client, len(good), cpu, wall, speed, lost, len(runs) - len(good))


def ratios(table: list[Summary]) -> list[Ratio]:
    """Compare what was promised and what was measured."""
    by_name = {(summary.scenario, summary.client): summary for summary in table if summary.runs}
    found = []
    for scenario, other, measure, bound in RATIOS:
        ours, theirs = by_name.get((scenario, "trionats")), by_name.get((scenario, other))
        if ours is not None and theirs is not None:
            found.append(Ratio(scenario, other, measure, bound, getattr(ours, measure) / getattr(theirs, measure)))
    return found


def show(table: list[Summary], compared: list[Ratio], machine: dict[str, Any], versions: dict[str, Any]) -> None:
    print(f"\nnats-server {machine['nats-server']}; {machine['cpu']}", end="")
    print(f", {machine['cores']} cores, load {machine['load'][0]:.1f}")
    for client, found in versions.items():
        print(f"  {client}: " + ", ".join(f"{package} {version}" for package, version in found.items()))
    print(f"\n{'scenario':18}{'client':24}{'CPU/op':>12}{'wall/op':>12}{'MB/s':>8}{'runs':>6}{'lost':>8}")
    last = ""
    for row in table:
        speed = f"{row.megabytes_per_second:8.0f}" if row.megabytes_per_second else " " * 8
        name, last = (row.scenario if row.scenario != last else ""), row.scenario
        times, failed = f"{_time(row.cpu):>12}{_time(row.wall):>12}", f"  {row.errors} failed" if row.errors else ""
        print(f"{name:18}{row.client:24}{times}{speed}{row.runs:6}{row.lost:8}{failed}")
    if compared:
        print("\ntrionats compared with")
    for ratio in compared:
        kept, what = ratio.value <= ratio.bound, f"  {ratio.scenario:17} {ratio.other:22} {ratio.measure:5}"
        print(f"{what}{ratio.value:7.3f} x, promised at most {ratio.bound:.3f}: {'kept' if kept else 'MISSED'}")


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.2f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"
