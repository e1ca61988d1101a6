"""Other people's Python packages that want another Python than the tests run on: installed once, and kept for the next time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.go_programs import KEPT


def find_python(*versions: str) -> str:
    """Find an interpreter of one of these versions, as `.ci/run` does; skip where there is none."""
    installed = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in versions:
        for found in [*sorted(installed.glob(f"{version}.*/bin/python")), shutil.which(f"python{version}")]:
            if found is not None and Path(found).exists():
                return str(found)
    pytest.skip(f"there is no Python {' or '.join(versions)}")


def find_packages(*packages: str, versions: tuple[str, ...] = ("3.13", "3.14"), seconds: float = 180) -> Path:
    """Give an interpreter that has these packages; skip where there is none, or no index to get them from.

    Args:
        packages: What pip is told, with a version each: "natsio==1.0.1".
        versions: Of Python, the first one that is there.
        seconds: How long it may take to install them.
    """
    folder = KEPT / "python" / "+".join(packages).replace("==", "-")
    interpreter = folder / "bin" / "python"
    if interpreter.exists():
        return interpreter
    python = find_python(*versions)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may come here at once; a virtual environment does not move, so the first that is done leads the others to its own.
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        for command in (
            [python, "-m", "venv", str(made)],
            [str(made / "bin" / "python"), "-m", "pip", "install", "-qq", *packages],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=seconds)
        folder.symlink_to(made, target_is_directory=True)
    except FileExistsError:
        shutil.rmtree(made, ignore_errors=True)
    except (subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(made, ignore_errors=True)
        pytest.skip(f"{' '.join(packages)} cannot be installed: {error}")
    return interpreter
