"""A codec of one's own: names of files as keys, whatever letters they have, dots included.

Run it with the URL of a server that has JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys
from urllib.parse import quote, unquote

import trio

import trionats
from trionats.testing import NatsServer


class FileNames:
    """`docs/Read me.txt` stands in the bucket as `docs.Read=20me=2Etxt`."""

    def encode_key(self, key: str) -> str:
        """Give the form in the bucket."""
        return ".".join(self._encode(name) for name in key.split("/"))

    def decode_key(self, key: str) -> str:
        """Give the form that the program knows."""
        return "/".join(unquote(token.replace("=", "%")) for token in key.split("."))

    def encode_filter(self, pattern: str) -> str:
        """Give the form of a pattern, whose wildcards stay."""
        return ".".join(name if name in ("*", ">") else self._encode(name) for name in pattern.split("/"))

    @staticmethod
    def _encode(name: str) -> str:
        # `quote` leaves dots and tildes as they are; a literal "=" or "%" becomes "%3D" or "%25" before it is replaced.
        return quote(name, safe="").replace(".", "%2E").replace("~", "%7E").replace("%", "=")


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, url) as nc,
    ):
        js = nc.jetstream()
        kv = await js.create_key_value(bucket="files")
        files = kv.with_codecs(keys=FileNames())
        await files.put("docs/Read me.txt", "...")
        await files.put("docs/Grüße.txt", "...")
        await files.put("src/a=b~.py", "...")
        print("in docs:", await files.keys("docs/*"))
        print("stored as:", await kv.keys())
        async with trionats.open_watcher(nursery, files, keys="src/>") as rx:
            print("watched:", [entry.key for entry in await rx.snapshot()])
        await js.delete_key_value("files")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
