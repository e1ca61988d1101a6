"""A stream, as a program holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Never, final

from trio.lowlevel import checkpoint

from trionats._core.deadlines import unexpected
from trionats._jetstream.api import about, confirmed
from trionats._jetstream.backups.saving import save
from trionats._jetstream.consumers.consumer import Consumer
from trionats._jetstream.direct import read_all, read_one
from trionats._jetstream.management import JetStreamManager, purged
from trionats._jetstream.management.consumer_requests import create
from trionats._protocol import fields
from trionats._protocol.jetstream.direct import checked_latest, checked_stretch, one_message
from trionats._protocol.subjects import consumer_name, pattern

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from nats.js import api as nats_api

    from trionats import api
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._jetstream.progress import Progress

__all__ = ["Stream"]


@final
class Stream:
    """A stream: what `JetStream.stream` and `create_stream` give. It holds no state and needs no closing.

    Attributes:
        name: The stream's name.
        cached_info: What the server said of it last.
    """

    def __init__(self, jetstream: Api[Publishing], info: api.StreamInfo) -> None:
        self._jetstream = jetstream
        self.name, self.cached_info = info.config.name or "", info

    def __repr__(self) -> str:
        return f"<Stream {self.name!r}>"

    def __str__(self) -> str:
        return f"stream {self.name!r}"

    async def info(self, *, subjects_filter: str | None = None, deleted_details: bool = False) -> api.StreamInfo:
        """Ask the server what it says of it now; arguments and errors as for `JetStream.stream_info`.

        Args:
            subjects_filter: List the stored subjects that match this pattern, with their counts, in `state.subjects`.
            deleted_details: List the sequences that were deleted between the first and the last, in `state.deleted`.
        """
        self.cached_info = await self._manager.stream_info(self.name, subjects_filter, deleted_details)
        return self.cached_info

    async def nearest(self) -> Stream:
        """Find the nearest stream that holds the same messages: this one, or a mirror of it in a nearer cluster.

        Which one that is, the server says (`StreamInfo.alternates`); where it names none, or one that is as near, it is this
        one. A mirror may be behind, and holds what its filter lets through.

        Raises:
            trionats.errors.NotFoundError: The stream is not there any more.
        """
        alternates = (await self.info()).alternates or []
        near = [alternate.name for alternate in alternates if alternate.cluster == alternates[0].cluster]
        if not near or self.name in near:
            return self
        return Stream(self._jetstream, await self._manager.stream_info(near[0]))

    # Its configuration and its life.

    async def update(self, config: nats_api.StreamConfig | None = None, **params: object) -> api.StreamInfo:
        """Change its configuration, as `JetStream.update_stream` does: by keywords alone, just these fields.

        Args:
            config: The whole configuration; what it leaves out becomes the server's default.
            params: Fields of `StreamConfig` that replace those of `config`, or of what the stream has.

        Returns:
            What the server says of it now.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, or another name is given: a stream keeps its own.
            trionats.errors.APIError: The server refused, or is too old.
        """
        for name in (getattr(config, "name", None), params.get("name")):
            if name is not None and name != self.name:
                raise ValueError(f"update: name is {name!r}, and stream {self.name!r} keeps its own")
        self.cached_info = await self._manager.update_stream(config, **{**params, "name": self.name})
        return self.cached_info

    async def purge(self, *, subject: str | None = None, seq: int | None = None, keep: int | None = None) -> int:
        """Delete messages of it: all, or those that match.

        Args:
            subject: Only what matches this pattern.
            seq: Only what is below this sequence, which is 1 at the least; below that there is nothing, and nothing is sent. Not
                together with `keep`.
            keep: All but this many of the newest.

        Returns:
            How many messages were deleted.

        Raises:
            ValueError: Both `seq` and `keep` were given, or a number that none can be; nothing was sent.
            trionats.errors.APIError: The server refused (`deny_purge`, `sealed`).
        """
        return await purged(self._jetstream, "purge", self.name, seq, subject, keep)

    async def delete(self) -> bool:
        """Delete it with all its messages and consumers."""
        return await self._manager.delete_stream(self.name)

    async def backup(
        self, path: str | os.PathLike[str], progress: Progress | None = None, **unknown: Never
    ) -> api.StreamState:
        """Back it up into a directory, its messages, configuration and consumers, as the `nats` tool does (0.5.0).

        `JetStream.restore_stream` and the tool restore it, and what the tool backs up is restored by the former. What is
        stored while it runs is not in it, and nobody is held up. What is deleted while it runs may be missing from it (server 2.15.1). The directory is written beside its place and takes that
        when all of it is there, verified and on the disk; until then, and where it fails or is cancelled, there is nothing.
        It holds `backup.json` and the archive, `stream.arc.s2` from a server of 2.15 or later and `stream.tar.s2` from an
        older one. What is verified: that no piece was lost and that the archive is whole; not its checksums, which the
        server looks at when it restores.

        There is no limit to how long it takes; it fails when nothing moves for 30 s, and when the connection is lost. Up to
        24 MiB are held in memory.

        Args:
            path: The directory, which is not there yet; the one around it is.
            progress: Called with the size of the archive so far, and None for what it will be, which nobody knows; in the
                end with its size twice. In the task that waits for this call.

        Returns:
            The state of the stream as the backup began: what it holds, but for what was deleted meanwhile.

        Raises:
            FileExistsError: There is something at the path; nothing was sent.
            OSError: The directory cannot be written.
            TypeError: An argument is of a wrong kind.
            ValueError: The path is empty.
            trionats.errors.NotFoundError: The stream is not there any more.
            trionats.errors.APIError: The server refused, or gave up: a server before 2.15 has no backups of streams in memory
                ("no impl").
            trionats.errors.BackupIncompleteError: What came is not whole.
            nats.errors.Error: The connection was lost, nothing came any more, or the user may not do it.
        """
        if unknown:
            raise unexpected("backup", unknown, "stream")
        return await save(self._jetstream, self.name, path, progress)

    # Its consumers.

    async def create_consumer(self, config: nats_api.ConsumerConfig | None = None, **params: object) -> Consumer:
        """Create a pull consumer, as `JetStream.create_consumer` does.

        Args:
            config: The configuration.
            params: Fields of `ConsumerConfig` that replace those of `config`.
        """
        info = await create(self._jetstream, "create_consumer", self.name, config, params, "create", pull_only=True)
        return Consumer(self._jetstream, self.name, info.name, info)

    async def consumer(self, name: str, *, bind: bool = False) -> Consumer:
        """Find a consumer of it.

        Args:
            name: Its name.
            bind: Do not ask the server: for users who may not (across accounts).

        Raises:
            trionats.errors.NotFoundError: There is no such consumer.
        """
        fields.check_argument("consumer", "bind", bool, bind)
        if bind:
            consumer_name(name)
            await checkpoint()
            return Consumer(self._jetstream, self.name, name, None)
        return Consumer(self._jetstream, self.name, name, await self._manager.consumer_info(self.name, name))

    async def consumer_names(self) -> list[str]:
        """List the names of all its consumers, sorted."""
        return await self._manager.consumer_names(self.name)

    async def consumers_info(self) -> list[api.ConsumerInfo]:
        """List all its consumers, by name."""
        return await self._manager.consumers_info(self.name)

    async def delete_consumer(self, name: str) -> bool:
        """Delete a consumer of it."""
        return await self._manager.delete_consumer(self.name, name)

    # Its place in a cluster.

    async def step_down(self, preferred: str | None = None) -> bool:
        """Have another replica lead. A publish that comes before the election is over is refused with "503", and repeated.

        Args:
            preferred: The name of the server that is to lead (server 2.11); None for any.

        Raises:
            trionats.errors.APIError: The server refused: it is in no cluster, or no such replica can lead.
        """
        fields.check_argument("step_down", "preferred", str | None, preferred)
        request = None if preferred is None else {"placement": {"preferred": preferred}}
        return await self._do("LEADER.STEPDOWN", request)

    async def remove_peer(self, name: str) -> bool:
        """Take a replica away; the cluster gives another server its place, if it has one.

        Args:
            name: The name of the server.

        Raises:
            trionats.errors.APIError: The server refused: it is in no cluster, or holds no replica.
        """
        fields.check_argument("remove_peer", "name", str, name)
        return await self._do("PEER.REMOVE", {"peer": name})

    async def _do(self, what: str, request: Mapping[str, object] | None) -> bool:
        with about(str(self)):
            response = await self._jetstream.request(f"STREAM.{what}.{self.name}", request)
            return confirmed(str(self), response["success"])

    @property
    def _manager(self) -> JetStreamManager:
        return JetStreamManager(self._jetstream)

    # What it holds.

    async def get_msg(
        self,
        seq: int | None = None,
        *,
        start_time: datetime | None = None,
        next_by_subj: str | None = None,
        direct: bool | None = None,
    ) -> api.StoredMsg:
        """Read one stored message: the one of a sequence, or the first from a place on.

        One request, two where a replica does not have it. What is stored is what the stream's leader says: "not found"
        is always its word, never a replica's.

        Args:
            seq: The message's sequence; with `next_by_subj`, where to begin.
            start_time: The first one that was stored then or later (server 2.11).
            next_by_subj: The first one whose subject matches this, at `seq` or `start_time` or behind, or of all.
            direct: Ask any replica (a direct get), and the leader only for what that has not. By default so where the
                stream has `allow_direct` and no replica can be wrong about it: for a sequence, or where there is only
                one replica. Where it is True, what a mirror says in the stream's place (`mirror_direct`) counts, too.

        Returns:
            The message.

        Raises:
            nats.js.errors.NotFoundError: There is no such message.
            trionats.errors.APIError: The server refused.
            TypeError: An argument is of a wrong kind.
            ValueError: They exclude each other, or say nothing.
        """
        asked = one_message("get_msg", seq, start_time, next_by_subj)
        by_sequence = list(asked) == ["seq"]
        what = ", ".join(f"{name} {value}" for name, value in asked.items())
        return await self._read(asked, f"message with {what}", direct, immutable=by_sequence)

    async def get_last_msg(self, subject: str, *, direct: bool | None = None) -> api.StoredMsg:
        """Read the newest message of a subject; `direct`, result and errors as for `get_msg`.

        Args:
            subject: The subject; wildcards allowed.
            direct: As for `get_msg`. A replica that is behind may have an older one.
        """
        pattern("get_last_msg: subject", subject)
        return await self._read({"last_by_subj": subject}, f"last message of {subject!r}", direct)

    async def get_msgs(
        self,
        *,
        seq: int | None = None,
        start_time: datetime | None = None,
        next_by_subj: str | None = None,
        batch: int,
        max_bytes: int | None = None,
    ) -> list[api.StoredMsg]:
        """Read many stored messages in their order, from a place on: batch direct get (ADR-31, server 2.11).

        The stream needs `allow_direct`. It is read in pages of at most 1,000 messages and 8 MiB, each of which waits as a
        request does. Nothing is left out: what is lost on the way, with a connection too, is asked for again; on a
        stream with several replicas the leader is asked for the last message, and a replica that is behind is waited for,
        for some ten seconds.

        Args:
            seq: The sequence to begin at.
            start_time: Or the time.
            next_by_subj: Only messages whose subjects match this.
            batch: How many, at the most.
            max_bytes: No more are read once these are so many bytes. The last one is read whole, and the server counts
                what it stores of a message, which is a little more than its payload and headers.

        Returns:
            The messages; an empty list where there are none.

        Raises:
            trionats.errors.APIError: The server refused, or is older.
            trionats.errors.ServiceUnavailableError: The stream has no `allow_direct`.
            nats.errors.TimeoutError: No answer, or a replica does not catch up.
            TypeError: An argument is of a wrong kind.
            ValueError: They exclude each other, or cannot be meant.
        """
        stretch = checked_stretch(
            self.name,
            seq=seq,
            start_time=start_time,
            next_by_subj=next_by_subj,
            batch=batch,
            max_bytes=max_bytes,
            replicated=self._replicated,
        )
        return await read_all(self._jetstream, self.name, stretch)

    async def get_last_msgs(
        self,
        subjects: str | Sequence[str],
        *,
        up_to_seq: int | None = None,
        up_to_time: datetime | None = None,
        batch: int | None = None,
    ) -> list[api.StoredMsg]:
        """Read the last message of each of many subjects: batch direct get (ADR-31, server 2.11).

        What is said of `get_msgs` holds here, too. They are those of one moment: a page of 8 MiB holds all of them, or
        they are those up to the last sequence of the first one. Where one of them was replaced before its page came, the
        one in its place is given, unless there is an `up_to_seq` or `up_to_time`: then it is gone.

        Args:
            subjects: One or several; wildcards allowed.
            up_to_seq: The last one up to this sequence.
            up_to_time: Or the last one that was stored before this time.
            batch: How many, at the most.

        Returns:
            The messages, in the order of their sequences.

        Raises:
            trionats.errors.APIError: The server refused: above all (code 413) where more than 1,024 subjects match, whatever
                `batch` is.
            nats.errors.Error: As for `get_msgs`.
        """
        latest = checked_latest(
            self.name,
            subjects,
            up_to_seq=up_to_seq,
            up_to_time=up_to_time,
            batch=batch,
            replicated=self._replicated,
        )
        return await read_all(self._jetstream, self.name, latest)

    async def delete_msg(self, seq: int, *, erase: bool = False) -> bool:
        """Delete one stored message.

        Args:
            seq: Its sequence.
            erase: Overwrite its place in the file with random bytes: slower.

        Returns:
            True.

        Raises:
            nats.js.errors.NotFoundError: There is no such message.
            trionats.errors.APIError: The server refused.
        """
        return await JetStreamManager(self._jetstream).delete_msg(self.name, seq, erase=erase)

    @property
    def _replicated(self) -> bool:
        return (self.cached_info.config.num_replicas or 1) > 1

    async def _read(
        self, asked: dict[str, object], what: str, direct: bool | None, *, immutable: bool = False
    ) -> api.StoredMsg:
        fields.check_argument("get_msg", "direct", bool | None, direct)
        if direct is None:
            anybody = bool(self.cached_info.config.allow_direct) and (immutable or not self._replicated)
        else:
            anybody = direct
        what = f"{what} of stream {self.name!r}"
        return await read_one(self._jetstream, self.name, asked, what, direct=anybody, chosen=direct is True)
