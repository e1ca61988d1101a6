"""Sealing a bucket of objects: nothing is written into it, nor deleted from it, any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trionats import errors
from trionats._jetstream.api import about, api_error, in_store
from trionats._jetstream.management import JetStreamManager

if TYPE_CHECKING:
    from trionats._jetstream.objects.access import Access

__all__ = ["seal"]


async def seal(access: Access) -> None:
    """Seal a bucket, as `ObjectStore.seal` says."""
    manager = JetStreamManager(access.api)
    with in_store(str(access.names)):
        config = (await manager.stream_info(access.stream)).config
        if config.mirror is not None:
            text = f"{access.names} is a mirror of stream {config.mirror.name!r}: only that can be sealed"
            raise api_error(errors.BadRequestError, text, text, code=400)
        with about(str(access.names)):
            await manager.update_stream(config, sealed=True)
