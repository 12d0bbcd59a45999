"""Reading the bucket of desired state, whole for its writers, and single messages of streams."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from vmfabric.contract.desired import BUCKET
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.desired import KEY_SUBJECT

_READ_SECONDS = 30.0
_CHECK_SECONDS = 5.0
_STREAM = f"KV_{BUCKET}"

log = structlog.get_logger()


async def read_bucket(bus: Bus, keys: Sequence[str]) -> Mapping[str, bytes]:
    """The last value of every key that matches. TryAgain when it cannot be read whole."""
    await bus.connected()
    try:
        return await read_values(bus.client, bus.jetstream, keys)
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise TryAgain(Code.INTERNAL, f"the bucket {BUCKET} cannot be read: {error!r}") from error


async def read_values(client: Client, jetstream: JetStreamContext, keys: Sequence[str]) -> Mapping[str, bytes]:
    """The same by a connection of one's own, with that connection's errors.

    Not nats-py's `keys()`: it finds an empty bucket when the server sends the values before the client looks how many
    there are.
    """
    found: dict[str, bytes] = {}
    whole = asyncio.Event()

    async def received(message: Msg) -> None:
        key = message.subject.removeprefix(KEY_SUBJECT)
        if "KV-Operation" in (message.headers or {}):
            found.pop(key, None)
        else:
            found[key] = message.data
        if not message.metadata.num_pending:
            whole.set()

    inbox = client.new_inbox()
    config = ConsumerConfig(
        deliver_subject=inbox,
        deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
        ack_policy=AckPolicy.NONE,
        filter_subjects=[KEY_SUBJECT + key for key in keys],
        inactive_threshold=30,
        mem_storage=True,
    )
    async with asyncio.timeout(_READ_SECONDS):
        subscription = await client.subscribe(inbox, cb=received)
        try:
            info = await jetstream.add_consumer(_STREAM, config=config)
            if info.num_pending or (info.delivered and info.delivered.consumer_seq):
                await whole.wait()
        finally:
            await subscription.unsubscribe()  # and the server drops the consumer by itself
    return found


async def watch_bucket(bus: Bus, made_anew: Callable[[], None], *, every: float = _CHECK_SECONDS) -> None:
    """Say when the bucket is another one than before, so that it has lost what it had; make it when it is gone.

    A server that loses its data need not lose its connections. Until cancelled.
    """
    await bus.connected()
    known: datetime | None = None
    while True:
        try:
            made_at = await _made_at(bus)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            log.debug("bucket.not_checked", error=repr(error))
        else:
            if known is not None and made_at != known:
                log.warning("bucket.made_anew", bucket=BUCKET)
                made_anew()
            known = made_at
        await asyncio.sleep(every)


async def _made_at(bus: Bus) -> datetime | None:
    try:
        info = await bus.jetstream.stream_info(_STREAM)
    except nats.js.errors.NotFoundError:
        await bus.ensure_streams()
        info = await bus.jetstream.stream_info(_STREAM)
    return info.created


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message of a stream."""

    sequence: int
    """Its place in the stream."""
    data: bytes


async def last_message(bus: Bus, stream: str, subject: str) -> KeptMessage | None:
    """What was said last on a subject; None when nothing is kept. TryAgain when that cannot be found out."""
    try:
        message = await bus.jetstream.get_last_msg(stream, subject)
    except nats.js.errors.NotFoundError:
        return None
    except nats.js.errors.ServiceUnavailableError as error:
        sentence = f"stream {stream} has no leader: too few nats-servers of the cluster run"
        raise TryAgain(Code.INTERNAL, sentence) from error
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise TryAgain(Code.INTERNAL, f"stream {stream} cannot be read: {error!r}") from error
    if "KV-Operation" in (message.headers or {}):
        return None
    return KeptMessage(message.seq or 0, message.data or b"")


async def last_value(bus: Bus, key: str) -> bytes | None:
    """What the bucket has for a key; None when it has none."""
    kept = await last_message(bus, _STREAM, KEY_SUBJECT + key)
    return None if kept is None else kept.data
