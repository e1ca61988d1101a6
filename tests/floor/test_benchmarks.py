"""The benchmarks run and write sane figures; what the figures are is not a test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.report import RATIOS, ratios, summaries
from tests.benchmarks.run import CLIENTS, SCENARIOS, choose_interpreters, parse_arguments

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.live
@pytest.mark.usefixtures("server_executable")
def test_a_short_run(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--clients", "trionats", "--repeats", "1", "--scale", "0.002"]
    ran = subprocess.run([*command, "--json", path], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(path.read_text())
    assert figures["machine"]["nats-server"] in ran.stdout
    assert figures["versions"]["trionats"]["python"].startswith("3.")
    assert figures["ratios"] == []
    assert {run["scenario"] for run in figures["runs"]} == set(SCENARIOS)
    for run in figures["runs"]:
        assert (run["error"], run["lost"]) == ("", 0), run
    for summary in figures["summaries"]:
        assert summary["runs"] == 1
        assert 0 < summary["cpu"] < 1
        assert 0 < summary["wall"] < 10


def run(client: str, cpu: float, *, scenario: str = "publish", done: int = 10, error: str = "") -> dict[str, object]:
    figures = {"cpu": cpu, "wall": cpu, "done": done, "lost": 10 - done}
    return {"scenario": scenario, "client": client, "error": error, **figures}


def test_medians_and_ratios() -> None:
    runs = [run("trionats", cpu) for cpu in (10.0, 1.0, 2.0)]
    runs += [run("natsio", 5.0), run("natsio", 5.0, done=5), run("natsio", 0.0, done=0, error="broken")]
    ours, theirs = summaries(runs)
    assert (ours.cpu, ours.runs, ours.lost, ours.errors) == (0.2, 3, 0, 0)
    assert (theirs.cpu, theirs.runs, theirs.lost, theirs.errors) == (0.75, 2, 5, 1)
    (ratio,) = ratios([ours, theirs])
    assert (ratio.scenario, ratio.other, ratio.bound) == ("publish", "natsio", 0.8)
    assert ratio.value == pytest.approx(0.2 / 0.75)
    assert ratios(summaries([run("natsio", 1.0)])) == []


def test_the_promises_are_about_things_that_are_measured() -> None:
    for scenario, other, measure, _ in RATIOS:
        assert scenario in CLIENTS[other].scenarios
        assert scenario in SCENARIOS
        assert measure in ("cpu", "wall")


@pytest.mark.parametrize("option", ["--clients", "--scenarios"])
def test_a_name_that_is_none_is_told(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments([option, "trionats,nope" if option == "--clients" else "nope"])
    assert "there is no 'nope'; there are " in capsys.readouterr().err


def test_interpreters_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = parse_arguments(["--python", "natsio=/somewhere/python", "--python", sys.executable])
    chosen = choose_interpreters(["trionats", "natsio", "nats-py"], wanted.python)
    assert chosen == {"trionats": sys.executable, "natsio": "/somewhere/python", "nats-py": sys.executable}
    assert choose_interpreters(["trionats"], ["/no/such/python"]) == {}
    assert "no interpreter has trionats" in capsys.readouterr().out
