"""Chunks that no object names: finding them without reading any data, and purging them.

A page of the subjects under which chunks are stored is compared with all infos of the bucket, so what is kept is bounded however
large the bucket is. Of those that nobody names the headers are read: how many, how large, how old. `_protocol.jetstream.objects.orphans` decides.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from trionats import errors
from trionats._jetstream.api import about, in_store, unreadable
from trionats._jetstream.management import purged
from trionats._jetstream.objects.buckets import Bucket
from trionats._jetstream.objects.infos import infos_in
from trionats._jetstream.ordered.entries import Entries
from trionats._jetstream.ordered.listing import StoredReading
from trionats._jetstream.publishing.destination import written_at
from trionats._protocol.jetstream.acks import count_of
from trionats._protocol.jetstream.actions import ALL, LAST_PER_SUBJECT
from trionats._protocol.jetstream.buckets.kinds import OBJECTS
from trionats._protocol.jetstream.objects.orphans import Candidates, Found, checked_age, claimed
from trionats._told.moments import read_moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats import api
    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging, Publishing
    from trionats._jetstream.api import Api
    from trionats._jetstream.objects.access import Access
    from trionats._protocol.jetstream.acks import AckSubject

__all__ = ["Orphans"]

#: Of how many orphans the chunks are looked at by one consumer.
LOOKED_AT: Final = 100
#: How often infos are read on because more came meanwhile, and how long what came last is waited for each time.
READ_ON: Final = 100
READ_ON_PAUSE: Final = 1.0


@final
class Orphans:
    """Finds and purges the orphans of one bucket."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def find(self, older_than: float) -> list[api.Orphan]:
        """Find them, as `ObjectStore.orphans` says."""
        return await self._search(checked_age("orphans", older_than), purge=False)

    async def purge(self, older_than: float) -> list[api.Orphan]:
        """Find and purge them, as `ObjectStore.purge_orphans` says."""
        return await self._search(checked_age("purge_orphans", older_than), purge=True)

    async def _search(self, older_than: float, *, purge: bool) -> list[api.Orphan]:
        orphans: list[api.Orphan] = []
        offset, total = 0, 1
        while offset < total:
            page, size, total, now = await self._read_page(offset)
            if not size:
                break
            offset += size
            if page:
                await self._drop_named(page)
            if page:
                await self._look_at(page)
            found = page.old(now, older_than)
            if purge:
                gone = await self._purge(page, found)
                orphans += gone
                offset -= len(gone)
            else:
                orphans += [orphan for orphan, _ in found]
        return orphans

    async def _purge(self, page: Candidates, found: list[Found]) -> list[api.Orphan]:
        access, gone = self._access, []
        for begin in range(0, len(found), LOOKED_AT):
            # Somebody may have named them meanwhile; what was stored since, the purge leaves.
            await self._drop_named(page)
            for orphan, last in found[begin : begin + LOOKED_AT]:
                subject = access.names.chunk_subject(orphan.nuid)
                if orphan.nuid in page and await purged(
                    access.api, "purge_orphans", access.stream, last + 1, subject, None
                ):
                    gone.append(orphan)
        return gone

    async def _read_page(self, offset: int) -> tuple[Candidates, int, int, datetime]:
        access = self._access
        asked: dict[str, object] = {"subjects_filter": access.names.chunk_subject(">")}
        with in_store(str(access.names)), about(str(access.names)):
            response = await access.api.request(
                f"STREAM.INFO.{access.stream}", {**asked, "offset": offset} if offset else asked
            )
            state = response.get("state")
            subjects = (state.get("subjects") if isinstance(state, dict) else None) or {}
            total = count_of(response.get("total", len(subjects)))
            if not isinstance(subjects, dict) or total is None:
                raise unreadable(str(access.names), "it lists no subjects")
            # The server's own time, as that of its messages is; one before 2.10 does not say it.
            now = read_moment(response["ts"]) if "ts" in response else datetime.now(UTC)
        return Candidates(access.names.chunk_subject(""), subjects), len(subjects), total, now

    async def _drop_named(self, page: Candidates) -> None:
        """Read all infos; for a mirror, those of its origin, too: a put may have got there, and not yet here."""
        access = self._access
        buckets: list[tuple[Api[Publishing], Bucket]] = [(access.api, access.names)]
        if access.api.whereabouts.origin(access.stream) is not None:
            there, stream = written_at(access.api, access.stream)
            buckets.append((there, Bucket(OBJECTS.bucket_of(stream), access.names.origin)))
        for jetstream, bucket in buckets:
            with in_store(str(bucket)):
                await _Names(jetstream, bucket, page, self._doing).run()

    async def _look_at(self, page: Candidates) -> None:
        subjects = page.subjects
        with in_store(str(self._access.names)):
            for begin in range(0, len(subjects), LOOKED_AT):
                await _Headers(self._access, subjects[begin : begin + LOOKED_AT], page, self._doing).run()

    @property
    def _doing(self) -> str:
        return f"search for orphans in bucket {self._access.bucket!r}"


class _Names(StoredReading):
    """Reads all infos, until the last one that was read is the last one that there is."""

    def __init__(self, jetstream: Api[Messaging], bucket: Bucket, page: Candidates, doing: str) -> None:
        super().__init__(infos_in(jetstream, bucket, ignore_deletes=False), LAST_PER_SUBJECT, doing)
        self._api, self._bucket, self._page = jetstream, bucket, page
        self._last = 0

    def _look(self, msg: Msg, ack: AckSubject) -> None:
        self._last = ack.sequence
        self._page.named(claimed(msg.data))

    async def _read_on(self) -> None:
        for _ in range(READ_ON):
            message = await self._api.last_stored(self._bucket.stream, self._bucket.infos)
            last = 0 if message is None else count_of(message.get("seq")) or 0
            if last <= self._last:
                return
            with trio.move_on_after(READ_ON_PAUSE):  # it may be gone by now
                await self._step_until(partial(self._has_read, last))
        text = f"{self._doing}: the infos change faster than they can be read"
        raise errors.explained(errors.TimeoutError, text)

    def _has_read(self, sequence: int) -> bool:
        return self._last >= sequence


class _Headers(StoredReading):
    """Reads the headers of chunks, and not their data."""

    def __init__(self, access: Access, subjects: Sequence[str], page: Candidates, doing: str) -> None:
        entries: Entries[None] = Entries(
            str(access.names),
            access.api,
            access.stream,
            tuple(subjects),
            read=lambda *_: None,
            key=lambda entry: entry,
            headers_only=True,
        )
        super().__init__(entries, ALL, doing)
        self._page = page

    def _look(self, msg: Msg, ack: AckSubject) -> None:
        self._page.chunk(msg.subject, ack.sequence, ack.timestamp, msg.headers.get("Nats-Msg-Size"))
