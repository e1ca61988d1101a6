"""python -m trionats: the demonstration."""

from __future__ import annotations

import argparse
import sys

from trionats import __version__
from trionats._cli import demo


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for.

    Args:
        arguments: The command line without the program's name; by default that of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m trionats", description="A Trio client for NATS.")
    parser.add_argument("--version", action="version", version=f"trionats {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "demo",
        help="start a nats-server, watch an object store, and leave the watcher in each way there is",
        description="Needs a nats-server: pip install 'trionats[server]'. The exit code is 0 if nothing was left behind.",
    )
    parser.parse_args(arguments)
    return demo.main()


if __name__ == "__main__":
    sys.exit(main())
