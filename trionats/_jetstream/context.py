"""JetStream as one client sees it: management, acknowledged publish, stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Never, Unpack, final

from trio.lowlevel import checkpoint

from trionats import api
from trionats._core.deadlines import unexpected
from trionats._feeds.opening import opens
from trionats._jetstream.api import Api
from trionats._jetstream.backups.restoring import restore
from trionats._jetstream.consumers.consumer import Consumer
from trionats._jetstream.consumers.ordered_consumer import ordered_consumer
from trionats._jetstream.counters import Counter, find_counter
from trionats._jetstream.kv import buckets as key_values
from trionats._jetstream.kv.store import KeyValue
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.management.consumer_requests import consumer_of, create
from trionats._jetstream.objects import buckets as object_stores
from trionats._jetstream.objects.store import ObjectStore
from trionats._jetstream.partitions import groups
from trionats._jetstream.publishing.batch import Batch, batching
from trionats._jetstream.publishing.publish import encoded, joined, publish_until_known, unexpected_publish
from trionats._jetstream.schedules import list_schedules, schedule, unschedule
from trionats._jetstream.streams import Stream
from trionats._protocol import fields
from trionats._protocol.jetstream.partitions.groups import Place, added, checked_members, dropped, wanted
from trionats._protocol.jetstream.publishing.publish import publish_headers
from trionats._protocol.jetstream.schedules import schedule_headers
from trionats._protocol.subjects import domain_name, pattern, publish_subject

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from nats.js import api as nats_api

    from trionats._core.messaging import Publishing
    from trionats._jetstream.consumers.ordered_consumer import OnRecreate, OrderedConsumer
    from trionats._jetstream.progress import Progress

DeliverPolicyText = Literal["all", "last", "new", "last_per_subject", "by_start_sequence", "by_start_time"]


@final
class JetStream(JetStreamManager):
    """JetStream as one client sees it, at one API prefix: streams, consumers, stores, acknowledged publish.

    Made by `Client.jetstream`. It holds no state of its own and needs no closing.
    """

    def __init__(self, connection: Publishing, *, domain: str | None = None, prefix: str | None = None) -> None:
        if domain is not None and prefix is not None:
            raise ValueError(f"either a JetStream domain ({domain!r}) or a prefix ({prefix!r}), not both")
        chosen = (
            f"$JS.{domain_name(domain)}.API"
            if domain is not None
            else prefix
            if prefix is not None
            else api.DEFAULT_PREFIX
        )
        self._jetstream = Api(connection, chosen, domain)
        super().__init__(self._jetstream)

    def __repr__(self) -> str:
        return f"<JetStream at {self.prefix!r}>"

    async def publish(
        self,
        subject: str,
        payload: bytes | str = b"",
        *,
        stream: str | None = None,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        msg_id: str | None = None,
        msg_ttl: float | Literal["never"] | None = None,
        rollup: Literal["sub", "all"] | None = None,
        expected_last_seq: int | None = None,
        expected_last_subject_seq: int | None = None,
        expected_last_subject_seq_subject: str | None = None,
        expected_last_msg_id: str | None = None,
        **unknown: Never,
    ) -> api.PubAck:
        """Publish a message and wait until a stream has stored it.

        Where no stream listens it is tried twice more, after 250 ms each, with the same headers and payload: a stream has
        no leader for a moment when that steps down (ADR-22).

        Cancelled after the message was queued, it may have been stored all the same; who must know uses a receipt of
        `open_publisher`. When the connection broke behind it, it is a `trionats.errors.DisconnectedError` whose `sent` is
        True; what had not left us waits for the next connection. Publishing it again with the same
        `msg_id`, within the stream's duplicate window, is then safe: it is stored once. While the first is still under
        way, the second waits for it, for some seconds. A stream with one replica looks at expectations before it looks
        for duplicates, so its conflict may be with the very same message: before one is raised, what stands behind the
        sequence that was expected is looked at (if the user may publish to `$JS.API.STREAM.MSG.GET.<stream>`), and a
        message with this id is a duplicate. Where it was deleted since, or the expectation was an id and others were stored
        since, a repeated publish can still be a conflict.

        Where the context was made for a domain (`Client.jetstream(domain=)`), only a stream of that domain counts.
        Streams of other domains that listen on the same subject store the message as well, which a
        `trionats.events.StoredElsewhere` event tells. A refusal does not say where it comes from, so it is raised only
        when no acknowledgement has come within 100 ms and four round trips of the API (0.5 s as long as that was not
        asked anything).

        Args:
            subject: Where to; a stream must listen there.
            payload: The message; text is encoded as UTF-8.
            stream: Refuse unless this is the stream that takes it.
            headers: More headers. Where an argument says something else than one of them, the argument holds.
            msg_id: A second message of the same id within the stream's duplicate window is dropped.
            msg_ttl: The stream forgets the message after so many whole seconds (server 2.11), from 1 to 9223372036, or
                "never". It must allow that (`allow_msg_ttl`). All but "never" ends at its `max_age`, and unless it
                keeps one message for each subject, less than its `subject_delete_marker_ttl` is stretched to that.
                When it is over, the message before it is the subject's last one again, if the stream has it.
            rollup: Drop what was stored before: of this subject ("sub"), or of the stream ("all"). It must allow that
                (`allow_rollup_hdrs`).
            expected_last_seq: Refuse unless this is the stream's last sequence.
            expected_last_subject_seq: Refuse unless this is the sequence of the subject's last message; 0 for none.
            expected_last_subject_seq_subject: Look at the last message of these subjects instead (server 2.12): a
                subject, which may have wildcards.
            expected_last_msg_id: Refuse unless this is the id of the stream's last message.

        Returns:
            The stream and the sequence that the message got, and whether it was a duplicate. The sequence of a
            duplicate is that of the first, which may have been deleted since.

        Raises:
            trionats.errors.NoStreamResponseError: No stream listens on the subject, or none in the domain that was
                asked for.
            trionats.errors.APIError: The stream refused.
            trionats.errors.DisconnectedError: The connection broke behind the message; whether it is stored is not known.
            nats.errors.Error: As for `Client.request`.
            TypeError: An argument is of a wrong kind.
            ValueError: An argument cannot be meant: a `msg_ttl` that is no number of whole seconds, a negative sequence,
                an empty id.
        """
        if unknown:
            raise unexpected_publish(unknown)
        doing = f"publish to {subject!r}"
        asked = publish_headers(
            doing,
            stream=stream,
            msg_id=msg_id,
            msg_ttl=msg_ttl,
            rollup=rollup,
            expected_last_seq=expected_last_seq,
            expected_last_subject_seq=expected_last_subject_seq,
            expected_last_subject_seq_subject=expected_last_subject_seq_subject,
            expected_last_msg_id=expected_last_msg_id,
        )
        data, sent = encoded(doing, payload), joined(doing, headers, asked)
        return await publish_until_known(self._jetstream, doing, subject, data, sent, asked)

    @opens
    async def open_batch(self) -> AsyncIterator[Batch]:
        """Publish several messages of which the stream stores all or none (ADR-50, server 2.12).

        There is no task behind it, so it takes no nursery::

            async with js.open_batch() as batch:
                await batch.publish("accounts.alice", b"-10")
                await batch.publish("accounts.bob", b"+10")
            print(batch.ack.seq)

        All messages go into one stream, whose configuration has `allow_atomic`. Nobody sees any of them before all are
        stored, one behind the other.

        Leaving the block commits, and waits for the stream's word. An exception, or a cancellation before the commit is
        queued, never commits; the server forgets within 10 s what it was given. Behind the commit it is whole or not at
        all. The wait for that word is shielded, for 2 s at the most; a cancellation that comes behind the commit has no effect
        if the word comes within these. Where it does not, `Batch.committed` is None. An exception of the block's own comes
        out as it is.

        When the connection breaks before the commit, nothing is stored, and it is a `trionats.errors.DisconnectedError`.
        When it breaks behind it, or the stream owes its word, the commit is sent once more with the next connection, and the
        stream is asked what it has, if the user may publish to `$JS.API.STREAM.MSG.GET.<stream>` and `$JS.API.STREAM.INFO.<stream>`:
        nothing is stored twice by that. If it has the batch, it is as if the word had come. If not, the exception is raised, and
        `Batch.committed` says False where that is certain, and None where it is not. That takes as long as a reply may take: until the
        deadline in force, for `request_timeout`, or 5 s.

        Entering asks once for the server's API level. A batch without messages sends nothing.

        Yields:
            The batch.

        Raises:
            trionats.errors.APIError: The server is older than 2.12; nothing was sent.
            trionats.errors.BatchError: On leaving: the stream refused; nothing is stored.
            trionats.errors.NoStreamResponseError: On leaving: no stream listens on the subject of one of the messages.
            trionats.errors.DisconnectedError: On leaving: the connection broke; see `Batch.committed`.
            nats.errors.TimeoutError: On leaving: the stream's word did not come in time; see `Batch.committed`.
            nats.errors.Error: As for `Client.publish`.
        """
        async with batching(self._jetstream) as batch:
            yield batch

    def __jetstream__(self) -> Api[Publishing]:
        """Give the API, as what is built on it asks it."""
        return self._jetstream

    # Streams and consumers, as objects.

    async def stream(self, name: str) -> Stream:
        """Find a stream.

        Args:
            name: Its name.

        Raises:
            trionats.errors.NotFoundError: There is no such stream.
        """
        return Stream(self._jetstream, await self.stream_info(name))

    async def create_stream(self, config: nats_api.StreamConfig | None = None, **params: object) -> Stream:
        """Create a stream, as `add_stream` does: one that exists with the same configuration is as good.

        Args:
            config: The configuration.
            params: Fields of `StreamConfig` that replace those of `config`.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, or the name is none.
            trionats.errors.APIError: The server refused, for instance because the stream exists with another configuration, or
                is too old.
        """
        return Stream(self._jetstream, await self.add_stream(config, **params))

    async def create_or_update_stream(self, config: nats_api.StreamConfig | None = None, **params: object) -> Stream:
        """Let there be a stream of this configuration, whether one of the name exists or not.

        What is given is the whole configuration, by keywords, too: what is left out becomes the server's default, also where
        the stream has something else. To change some fields of a stream that exists, use `Stream.update`.

        Args:
            config: The configuration.
            params: Fields of `StreamConfig` that replace those of `config`.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, or the name is none.
            trionats.errors.APIError: The server refused, for instance because the stream cannot become that, or is too old.
        """
        return Stream(self._jetstream, await self._ensure_stream(config, params))

    async def restore_stream(
        self,
        path: str | os.PathLike[str],
        config: nats_api.StreamConfig | None = None,
        *,
        progress: Progress | None = None,
        **params: object,
    ) -> Stream:
        """Restore a stream from a backup: what `Stream.backup` made, or the `nats` tool.

        It comes back with its messages under their sequences and times, and with its consumers where these stood. All that
        is known here is looked at before anything is sent: that the archive is whole, and that the server knows its form and
        what the configuration asks for. Where it fails or is cancelled, the server drops what it was given; once it has all
        of it, the stream comes to be, whoever still waits for that.

        There is no limit to how long it takes; it fails when the server takes nothing for 30 s, and when the connection is
        lost. Servers before 2.15 make the stream only when they have all of it, and are waited for for an hour.

        Args:
            path: The directory.
            config: Another configuration, whole; by default the stream has its own.
            progress: Called with how many bytes of the archive the server has taken, and how many it has. In the task that
                waits for this call.
            params: Fields of `StreamConfig` that replace those of `config`, or of the backup: `num_replicas`, `placement`. Not
                its `name`: a stream comes back under its own.

        Returns:
            The stream.

        Raises:
            OSError: The directory is not there, or cannot be read.
            TypeError: An argument is of a wrong kind, or a field holds what it cannot hold.
            ValueError: So does one with a number, the path is empty, or it is another name.
            trionats.errors.BackupIncompleteError: The directory holds no whole backup; nothing was sent.
            trionats.errors.APIError: The server refused: there is a stream of this name (10130) or of its subjects, there is no
                room; or it is too old.
            nats.errors.Error: The connection was lost, the server took no more, or the user may not do it.
        """
        return Stream(self._jetstream, await restore(self._jetstream, path, config, params, progress))

    async def consumer(self, stream: str, name: str, *, bind: bool = False) -> Consumer:
        """Find a consumer.

        Args:
            stream: The stream it reads.
            name: Its name.
            bind: Do not ask the server: for users who may not (across accounts).

        Raises:
            trionats.errors.NotFoundError: There is no such stream or consumer.
        """
        fields.check_argument("consumer", "bind", bool, bind)
        if bind:
            consumer_of(stream, name)
            await checkpoint()
            return Consumer(self._jetstream, stream, name, None)
        return Consumer(self._jetstream, stream, name, await self.consumer_info(stream, name))

    async def create_consumer(
        self, stream: str, config: nats_api.ConsumerConfig | None = None, **params: object
    ) -> Consumer:
        """Create a pull consumer.

        Names, filters and versions as for `add_consumer`. One that exists is never changed: a durable one of the same
        configuration is as good (so is another that says how long it lives, `inactive_threshold`); any other is an error
        (10148).

        Args:
            stream: The stream it reads.
            config: The configuration.
            params: Fields of `ConsumerConfig` that replace those of `config`.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, a name is none, fields exclude each other, or they are those of a push
                consumer: existing ones are read, none is created.
            trionats.errors.APIError: The server refused, or is too old.
        """
        info = await create(self._jetstream, "create_consumer", stream, config, params, "create", pull_only=True)
        return Consumer(self._jetstream, stream, info.name, info)

    async def create_or_update_consumer(
        self, stream: str, config: nats_api.ConsumerConfig | None = None, **params: object
    ) -> Consumer:
        """Let there be a pull consumer of this configuration, whether one of the name exists or not.

        What is given is the whole configuration, by keywords, too: what is left out becomes the server's default, also where
        the consumer has something else. To change some fields of a consumer that exists, use `Consumer.update`.

        Args:
            stream: The stream it reads.
            config: The configuration.
            params: Fields of `ConsumerConfig` that replace those of `config`.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: As for `create_consumer`.
            trionats.errors.APIError: The server refused, for instance because the consumer cannot become that, or is too old.
        """
        doing = "create_or_update_consumer"
        info = await create(self._jetstream, doing, stream, config, params, pull_only=True)
        return Consumer(self._jetstream, stream, info.name, info)

    async def ordered_consumer(
        self,
        stream: str,
        *,
        filter_subjects: str | Sequence[str] | None = None,
        deliver_policy: api.DeliverPolicy | DeliverPolicyText = "all",
        opt_start_seq: int | None = None,
        opt_start_time: datetime | None = None,
        headers_only: bool = False,
        replay_policy: api.ReplayPolicy | Literal["instant", "original"] = "instant",
        inactive_threshold: float = 30.0,
        name_prefix: str | None = None,
        metadata: Mapping[str, str] | None = None,
        on_recreate: OnRecreate = "fail",
        **unknown: Never,
    ) -> OrderedConsumer:
        """Read a stream in order, without gap and without duplicate.

        It asks the server to create a consumer, which fixes where reading begins, and deletes that one again. So what
        is "new" is what is stored after this call, a stream that is not there is refused here, and so is a filter; it
        needs no permission that reading does not need. In a cluster "new" also asks the stream's leader.

        No message is lost and none comes twice, whatever happens to the connection, the server or its consumers. A message
        that is deleted before it was sent does not come, and with "last_per_subject" neither does one that is replaced
        before.

        Args:
            stream: The stream's name.
            filter_subjects: Read only what matches one of these; all by default. A single one stands in the request's
                subject, so that a permission can be granted for it.
            deliver_policy: Where to begin: "all"; "last", with the last one that matches; "new"; "last_per_subject", with
                the last one of each subject; "by_start_sequence" or "by_start_time", with what these name.
            opt_start_seq: The sequence to begin with, or the next one that there is.
            opt_start_time: Begin with the first message that was stored at that time or later; an aware datetime. If it is
                to come, that is the same as "new".
            headers_only: Leave the payloads on the server, which adds their size (`Nats-Msg-Size`).
            replay_policy: "instant", or "original": as far apart as the messages were stored.
            inactive_threshold: How many seconds the server keeps a consumer that nobody asks, when it could not be deleted.
            name_prefix: How the consumers' names begin; a unique part and a number follow.
            metadata: What is told of them to who lists them.
            on_recreate: What to do when the stream is deleted and made anew while it is read: "fail", or "restart" with
                what the new one holds (all of it, where it was "new"), which an `events.StreamRecreated` tells.

        Returns:
            The handle: `fetch` from it, or open it with `open_consumer`.

        Raises:
            trionats.errors.NotFoundError: There is no such stream.
            trionats.errors.APIError: The server refused, for instance because filters overlap.
            TypeError: An argument is of another kind.
            ValueError: An argument cannot be, or does not go with the policy.
        """
        if unknown:
            raise unexpected("ordered_consumer", unknown, "js")
        return await ordered_consumer(
            self._jetstream,
            stream,
            filter_subjects=filter_subjects,
            deliver_policy=deliver_policy,
            opt_start_seq=opt_start_seq,
            opt_start_time=opt_start_time,
            headers_only=headers_only,
            replay_policy=replay_policy,
            inactive_threshold=inactive_threshold,
            name_prefix=name_prefix,
            metadata=metadata,
            on_recreate=on_recreate,
        )

    # Schedules and counters.

    async def schedule(
        self,
        subject: str,
        payload: bytes | str = b"",
        *,
        target: str,
        at: datetime | None = None,
        every: float | None = None,
        cron: str | None = None,
        ttl: float | Literal["never"] | None = None,
        time_zone: str | None = None,
        source: str | None = None,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        rollup: bool = False,
        **unknown: Never,
    ) -> api.PubAck:
        """Have the server store a message at a time, once or again and again (ADR-51).

        The schedule is a message itself: it is stored under its own subject, where it replaces the one before, and what it makes
        is stored under `target`, with its payload and headers and two that say where it comes from (`Nats-Scheduler`,
        `Nats-Schedule-Next`). So a consumer of its own subject would get it; in a work queue it would even be work, and
        gone once it is acknowledged. Publish nothing else under its subject: that disarms it, but not for good.

        One moment (`at`) needs a server of 2.12, everything else one of 2.14. Cancelled after it was sent, or when the
        connection broke behind it, it may have been stored; to schedule it again does no harm.

        Args:
            subject: The schedule's own subject. The stream that listens there must have `allow_msg_schedules`.
            payload: What is stored; text is encoded as UTF-8.
            target: Where: another subject of the same stream, without wildcards.
            at: At this moment, a datetime that knows its zone, from 1678 to 2262-04-11; one that has passed is at once. The
                schedule is gone then.
            every: So many seconds apart, which must be whole and at most a hundred years; the first is so many seconds from now.
            cron: When all of six fields are met: second, minute, hour, day of the month, month, day of the week (0 is Sunday), each
                `*`, a number, a range, a step (`*/5`) or a list, with names for months and days; in UTC. Where both kinds of
                day are restricted (a step is one, too), one of the two is enough. Or one of the words `@yearly`, `@monthly`,
                `@weekly`, `@daily`, `@hourly`.
            ttl: What is stored is kept for so many whole seconds, or "never" ends; the stream must have `allow_msg_ttl`.
            time_zone: `cron` is meant in this zone, by its IANA name.
            source: What is stored is the payload and the headers of the last message of this subject of the stream instead; its
                own while there is none.
            headers: More headers, which are stored, too, but for an id, expectations, a rollup and a TTL of the schedule itself.
            rollup: What is stored replaces all that was stored under `target` before.

        Returns:
            The stream and the sequence of the schedule. Is it a `duplicate`, by an id among the headers, then nothing was stored.

        Raises:
            trionats.errors.NoStreamResponseError: No stream listens on the subject.
            trionats.errors.APIError: The server is too old; nothing was stored. Or the stream refused: it takes no schedules, or
                `target` is none of its subjects.
            nats.errors.Error: As for `publish`.
            TypeError: An argument is of a wrong kind.
            ValueError: An argument cannot be meant: none or several of `at`, `every` and `cron`, a time zone without `cron`,
                a datetime without one, a `target` that is the subject, a `source` that is one of them.
        """
        if unknown:
            raise unexpected("schedule", unknown, "js")
        doing = f"schedule {subject!r}"
        publish_subject(subject, "schedule")
        asked = schedule_headers(
            doing,
            subject,
            target=target,
            at=at,
            every=every,
            cron=cron,
            ttl=ttl,
            time_zone=time_zone,
            source=source,
            rollup=rollup,
        )
        data, sent = encoded(doing, payload), joined(doing, headers, asked)
        return await schedule(self._jetstream, doing, subject, data, sent, asked)

    async def unschedule(self, subject: str, *, stream: str | None = None, **unknown: Never) -> bool:
        """Remove a schedule: once this returns, it makes no more messages.

        It is deleted (by a purge up to its sequence), and so is one that a plain message on top has disarmed. What was stored on
        top, or under `target`, stays.

        Args:
            subject: The schedule's own subject, as `schedules` tells it.
            stream: Its stream. Without, the one that listens on the subject is looked for: that is another one, or none, where
                the stream transforms its subjects, or does not listen there any more.

        Returns:
            Whether one was removed: False also for a moment that has come, and for one that was scheduled anew meanwhile, which
            stays.

        Raises:
            trionats.errors.NotFoundError: No stream listens on the subject, or there is none of this name.
            trionats.errors.APIError: The stream refused: it is sealed.
            nats.errors.BadSubjectError: It is no subject.
            TypeError: `stream` is no text.
            ValueError: It is no stream's name.
        """
        if unknown:
            raise unexpected("unschedule", unknown, "js")
        publish_subject(subject, "unschedule")
        return await unschedule(self._jetstream, subject, stream)

    async def schedules(self, stream: str, subjects: str = ">") -> list[api.Schedule]:
        """List the schedules of a stream, whoever made them.

        What counts is the last message of each subject: one with another message on top is not listed. Where the stream has many subjects that are no schedules, naming those
        that may be is much faster.

        Args:
            stream: The stream.
            subjects: What the schedules' own subjects match; wildcards allowed.

        Returns:
            The schedules, in the order in which they were made; none where there are none.

        Raises:
            trionats.errors.NotFoundError: There is no such stream.
            TypeError: `subjects` is no text.
            ValueError: It is no pattern.
        """
        return await list_schedules(self._jetstream, stream, pattern("schedules: subjects", subjects))

    async def counter(self, stream: str) -> Counter:
        """Find the counters of a stream, which was created with `allow_msg_counter` (ADR-49, server 2.12).

        Args:
            stream: Its name.

        Raises:
            trionats.errors.NotFoundError: There is no such stream.
            trionats.errors.APIError: It counts nothing (error 10168), or the server is too old for counters.
        """
        return await find_counter(self._jetstream, stream)

    # Key-value buckets.

    async def create_key_value(
        self, config: nats_api.KeyValueConfig | None = None, **params: Unpack[api.KeyValueParams]
    ) -> KeyValue:
        """Create a bucket for keys and values.

        One that exists is as good if its configuration says the same, whoever created it, and is an error if it says anything
        else: nothing is changed (ADR-8).

        Args:
            config: The configuration, nats-py's class or ours.
            params: Fields of `KeyValueConfig` that replace those of `config`: above all `bucket`, its name.

        Returns:
            The bucket.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, or fields exclude each other: a `history` beyond 64, a `limit_marker_ttl` that
                is no whole number of seconds, both `mirror` and `sources`.
            trionats.errors.InvalidBucketNameError: A name is none.
            trionats.errors.APIError: The server refused, or is too old; or the bucket exists with another configuration
                (error 10058): the text names the fields that differ.
        """
        return KeyValue(self._jetstream, await key_values.create(self._jetstream, config, params))

    async def key_value(self, bucket: str) -> KeyValue:
        """Find a bucket of keys and values.

        That of a mirror reads what the mirror holds, and writes where its origin is (ADR-57).

        Args:
            bucket: Its name.

        Returns:
            The bucket.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.BucketNotFoundError: There is no such bucket.
            trionats.errors.BadBucketError: There is a stream of that name, which is no bucket.
        """
        return KeyValue(self._jetstream, await key_values.find(self._jetstream, bucket))

    async def update_key_value(
        self, config: nats_api.KeyValueConfig | None = None, **params: Unpack[api.KeyValueParams]
    ) -> KeyValue:
        """Change the configuration of a bucket.

        Fields given by keyword alone (and `bucket`, its name) change just these. A `config` is the whole configuration: what
        it leaves out becomes the default. In both cases what the bucket has is read first, and what a `KeyValueConfig` does
        not name stays as it is. Two who do that at the same time may undo what the other did.

        Args:
            config: The whole configuration, nats-py's class or ours.
            params: Fields of `KeyValueConfig` that replace those of `config`, or of what the bucket has.

        Returns:
            The bucket.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: As for `create_key_value`; or a bucket keeps what it has: its `mirror`, and that it has a
                `limit_marker_ttl`.
            trionats.errors.BucketNotFoundError: There is no such bucket.
            trionats.errors.BadBucketError: There is a stream of that name, which is no bucket.
            trionats.errors.APIError: The server refused, for instance to change `storage`; or is too old.
        """
        return KeyValue(self._jetstream, await key_values.change(self._jetstream, config, params))

    async def create_or_update_key_value(
        self, config: nats_api.KeyValueConfig | None = None, **params: Unpack[api.KeyValueParams]
    ) -> KeyValue:
        """Let there be a bucket of this configuration, whether one of the name exists or not.

        What is given is the whole configuration, by keywords, too: what is left out becomes the default, also where the bucket
        has something else. To change some fields of a bucket that exists, use `update_key_value`.

        Args:
            config: The configuration, nats-py's class or ours.
            params: Fields of `KeyValueConfig` that replace those of `config`.

        Returns:
            The bucket.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: As for `update_key_value`.
            trionats.errors.APIError: The server refused, for instance because the bucket cannot become that, or is too old.
        """
        return KeyValue(self._jetstream, await key_values.ensure(self._jetstream, config, params))

    async def delete_key_value(self, bucket: str) -> bool:
        """Delete a bucket with all its keys.

        Args:
            bucket: Its name.

        Returns:
            True.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.BucketNotFoundError: There is no such bucket.
        """
        return await key_values.delete(self._jetstream, bucket)

    async def key_value_names(self) -> list[str]:
        """List the names of all key-value buckets, mirrors included, sorted.

        Streams whose names only look like that are left out, for which their configurations are read: one request for 256
        streams of the account. A bucket whose leader does not respond is not among them.
        """
        return [status.bucket for status in await self.key_values()]

    async def key_values(self) -> list[api.KeyValueStatus]:
        """Ask how all key-value buckets are, by name, as `key_value_names` lists them."""
        return await key_values.statuses(self._jetstream)

    # Object stores.

    async def create_object_store(
        self,
        bucket: str | None = None,
        config: nats_api.ObjectStoreConfig | None = None,
        **params: Unpack[api.ObjectStoreParams],
    ) -> ObjectStore:
        """Create a bucket for objects.

        One that exists is as good if its configuration says the same, whoever created it, and is an error if it says anything
        else: nothing is changed.

        Args:
            bucket: Its name: letters, digits, `-` and `_`. May stand in `config` instead.
            config: The configuration, nats-py's class or ours.
            params: Fields of `ObjectStoreConfig` that replace those of `config`.

        Returns:
            The bucket.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number.
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.APIError: The server refused; or the bucket exists with another configuration (error 10058): the
                text names the fields that differ.
        """
        return ObjectStore(self._jetstream, *await object_stores.create(self._jetstream, bucket, config, params))

    async def object_store(self, bucket: str) -> ObjectStore:
        """Find a bucket of objects.

        That of a mirror reads what the mirror holds, and writes where its origin is.

        Args:
            bucket: Its name.

        Returns:
            The bucket.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.BucketNotFoundError: There is no such bucket.
            trionats.errors.BadBucketError: There is a stream of that name, which is no bucket.
        """
        return ObjectStore(self._jetstream, *await object_stores.find(self._jetstream, bucket))

    async def update_object_store(
        self,
        bucket: str | None = None,
        config: nats_api.ObjectStoreConfig | None = None,
        **params: Unpack[api.ObjectStoreParams],
    ) -> ObjectStore:
        """Change the configuration of a bucket.

        Fields given by keyword alone change just these. A `config` is the whole configuration: what it leaves out becomes the
        default. In both cases what the bucket has is read first, and what an `ObjectStoreConfig` does not name stays as it
        is. Two who do that at the same time may undo what the other did.

        Args:
            bucket: Its name; may stand in `config` instead.
            config: The whole configuration, nats-py's class or ours.
            params: Fields of `ObjectStoreConfig` that replace those of `config`, or of what the bucket has.

        Returns:
            The bucket.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number; or it is a `ttl` for a bucket that is sealed.
            trionats.errors.BucketNotFoundError: There is no such bucket.
            trionats.errors.BadBucketError: There is a stream of that name, which is no bucket.
            trionats.errors.APIError: The server refused, for instance to change `storage`.
        """
        return ObjectStore(self._jetstream, *await object_stores.change(self._jetstream, bucket, config, params))

    async def create_or_update_object_store(
        self,
        bucket: str | None = None,
        config: nats_api.ObjectStoreConfig | None = None,
        **params: Unpack[api.ObjectStoreParams],
    ) -> ObjectStore:
        """Let there be a bucket of this configuration, whether one of the name exists or not.

        What is given is the whole configuration, by keywords, too: what is left out becomes the default, also where the bucket
        has something else. To change some fields of a bucket that exists, use `update_object_store`.

        Args:
            bucket: Its name; may stand in `config` instead.
            config: The configuration, nats-py's class or ours.
            params: Fields of `ObjectStoreConfig` that replace those of `config`.

        Returns:
            The bucket.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: As for `update_object_store`.
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.APIError: The server refused, for instance because the bucket cannot become that.
        """
        return ObjectStore(self._jetstream, *await object_stores.ensure(self._jetstream, bucket, config, params))

    async def delete_object_store(self, bucket: str) -> bool:
        """Delete a bucket with all its objects.

        Args:
            bucket: Its name.

        Returns:
            True.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.BucketNotFoundError: There is no such bucket.
        """
        return await object_stores.delete(self._jetstream, bucket)

    async def object_store_names(self) -> list[str]:
        """List the names of all object stores, mirrors included, sorted; what is said of `key_value_names` holds here, too."""
        return [status.bucket for status in await self.object_stores()]

    async def object_stores(self) -> list[api.ObjectStoreStatus]:
        """Ask how all object stores are, by name, as `object_store_names` lists them."""
        return await object_stores.statuses(self._jetstream)

    # Partitioned consumer groups.

    async def create_group(
        self,
        stream: str,
        group: str,
        max_members: int,
        *,
        elastic: bool = False,
        filters: str | Sequence[str] | Mapping[str, Sequence[int]] = (),
        members: str | Sequence[str] = (),
        mappings: Mapping[str, Sequence[int]] | None = None,
        max_buffered_msgs: int | None = None,
        max_buffered_bytes: int | None = None,
        **unknown: Never,
    ) -> api.ConsumerGroup:
        """Create a partitioned consumer group: its members share a stream, and each key of it is read by one of them at a time.

        The format is that of the public `pcgroups` extensions (Go's orbit, natsio): groups of one are read by the others. Server 2.11.

        A static group reads a stream whose subjects begin with a partition, which a subject transform of the stream puts there; its
        members are given here once and for all. An elastic one reads any stream: it has a work queue of its own, `<stream>-<group>`, which
        takes the stream's messages over and puts the partition before their subjects; its members come and go (`add_members`).

        A group that exists with the same configuration is as good, whatever members an elastic one has meanwhile. Failed or cancelled,
        nothing is left of it; the bucket of all groups stays, where it was created for this one. Cancelled while its configuration is on
        its way, that may be stored all the same: created again, the group is whole, and deleted, it is gone.

        Args:
            stream: The stream that is read.
            group: The group's name.
            max_members: How many partitions there are, and so how many members can have any: from 1 to 65536. It stays.
            elastic: Whether members come and go.
            filters: What of the stream is read, without the partition: a subject with wildcards, or several of them that do not overlap. For an
                elastic group also, by filter, which of its `*` (from 1) make up the key of a message: `{"orders.*.*": [1]}`; the whole
                subject, where nothing is said (server 2.12). All of the stream by default.
            members: Who its members are: the partitions are spread over them.
            mappings: Or the partitions of each member, from 0, by hand: each partition is given to one member. What is mapped is
                read whole, whatever `filters` say.
            max_buffered_msgs: How many messages the work queue of an elastic group holds at the most; it takes over no more, for a second
                at least, until some have been acknowledged.
            max_buffered_bytes: The same in bytes.
            unknown: There are no other options.

        Returns:
            What is stored.

        Raises:
            trionats.errors.GroupChangedError: It exists with another configuration; the text names the field.
            trionats.errors.NotFoundError: There is no such stream.
            trionats.errors.APIError: The server refused, for instance because another stream has the name of the work queue; or it is too old.
            TypeError: An argument is of another kind; nothing was sent.
            ValueError: An argument cannot be meant, or two exclude each other; the text names it. Or a static group could never read
                anything, since no subject of the stream begins with a partition.
        """
        if unknown:
            raise unexpected("create_group", unknown, "js")
        place = Place.checked("create_group", stream, group, elastic)
        checked = wanted(
            "create_group", place, max_members, filters, members, mappings, max_buffered_msgs, max_buffered_bytes
        )
        return await groups.create(self._jetstream, place, checked)

    async def delete_group(self, stream: str, group: str, *, elastic: bool = False, **unknown: Never) -> bool:
        """Delete a partitioned consumer group: its configuration, and the consumers of its members.

        An elastic one's work queue is deleted with all that it holds; the stream keeps what it has. The feeds of its members end in a
        `GroupNotFoundError`.

        Args:
            stream: The stream that it reads.
            group: Its name.
            elastic: Whether it is an elastic one: one of either kind may have the same name.
            unknown: There are no other options.

        Returns:
            True.

        Raises:
            trionats.errors.GroupNotFoundError: There is no such group, and nothing is left of one.
            TypeError: An argument is of another kind; nothing was sent.
            ValueError: It cannot be meant.
        """
        if unknown:
            raise unexpected("delete_group", unknown, "js")
        return await groups.delete(self._jetstream, Place.checked("delete_group", stream, group, elastic))

    async def add_members(
        self,
        stream: str,
        group: str,
        members: str | Sequence[str] | Mapping[str, Sequence[int]],
        **unknown: Never,
    ) -> api.ConsumerGroup:
        """Add members to an elastic group; who is one already stays one.

        Partitions are spread over all of them anew, so that few change hands. Given by hand (a mapping), they are taken from who has them, and
        who is left without any is no member any more. What a member holds when it loses a partition it may finish: the next one
        waits for its verdict.

        Args:
            stream: The stream that the group reads.
            group: Its name.
            members: A name, or several; or the partitions of each by hand.
            unknown: There are no other options.

        Returns:
            What is stored now. With no `members` at all that is what was stored: so a group is looked at.

        Raises:
            trionats.errors.GroupNotFoundError: There is no such elastic group.
            trionats.errors.GroupChangedError: What is stored is no configuration.
            TypeError: An argument is of another kind; nothing was sent.
            ValueError: A name is none; or there would be more members than partitions, or partitions that nobody or two have.
        """
        if unknown:
            raise unexpected("add_members", unknown, "js")
        place = Place.checked("add_members", stream, group, elastic=True)
        names = checked_members("add_members", place, members)
        return await groups.change(self._jetstream, place, lambda stored: added("add_members", place, stored, names))

    async def drop_members(
        self, stream: str, group: str, members: str | Sequence[str], **unknown: Never
    ) -> api.ConsumerGroup:
        """Drop members from an elastic group; who is none is as good as dropped.

        Their feeds stay open and are given nothing more (`events.PartitionsChanged` says so), until they are added again.

        Args:
            stream: The stream that the group reads.
            group: Its name.
            members: A name, or several.
            unknown: There are no other options.

        Returns:
            What is stored now.

        Raises:
            trionats.errors.GroupNotFoundError: There is no such elastic group.
            trionats.errors.GroupChangedError: What is stored is no configuration.
            TypeError: An argument is of another kind; nothing was sent.
            ValueError: A name is none; or partitions were given by hand, and nobody would have theirs.
        """
        if unknown:
            raise unexpected("drop_members", unknown, "js")
        place = Place.checked("drop_members", stream, group, elastic=True)
        names = checked_members("drop_members", place, members)
        return await groups.change(self._jetstream, place, lambda stored: dropped("drop_members", place, stored, names))


def jetstream_of(js: object, opener: str) -> Api[Publishing]:
    """Give the API behind what was passed to an `open_*` function as its context, or refuse it.

    Args:
        js: What was passed as the second argument.
        opener: The name of the function, for the error.

    Raises:
        TypeError: It is no context.
        RuntimeError: It belongs to another Trio run.
    """
    if not isinstance(js, JetStream):
        raise TypeError(f"{opener}(nursery, js, ...): js must be a JetStream, not {type(js).__name__}")
    jetstream = js.__jetstream__()
    jetstream.connection.pace.run.check(opener)
    return jetstream
