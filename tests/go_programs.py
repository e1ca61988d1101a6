"""Programs of other people that are written in Go: built once, and kept for the next time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trionats-tests"


def find_go_program(package: str, version: str, seconds: float = 300) -> Path:
    """Build a program, or find the one that was built before; skip where there is no Go, or no proxy to build it from.

    Args:
        package: Its path, whose last part that is no version is its name.
        version: As Go's modules have it.
        seconds: How long it may take.
    """
    name = package.removesuffix("/v2").rpartition("/")[2]
    executable = KEPT / version / name
    if executable.exists():
        return executable
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no Go")
    executable.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may come here at once: each builds one, and puts it whole into its place.
    with tempfile.TemporaryDirectory(dir=executable.parent) as made:
        environment = {**os.environ, "GOBIN": made, "GOFLAGS": "-mod=mod"}
        command = [go, "install", f"{package}@{version}"]
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=seconds)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"{name} cannot be built: {error}")
        Path(made, name).replace(executable)
    return executable
