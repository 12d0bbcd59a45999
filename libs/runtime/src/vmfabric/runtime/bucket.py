"""Reading the bucket of desired state, whole for its writers, and single messages of streams."""

import asyncio
from collections.abc import Mapping, Sequence

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from vmfabric.contract.desired import BUCKET
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.desired import KEY_SUBJECT

_READ_SECONDS = 30.0


async def read_bucket(bus: Bus, keys: Sequence[str]) -> Mapping[str, bytes]:
    """The last value of every key that matches. TryAgain when it cannot be read whole."""
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

    inbox = bus.client.new_inbox()
    config = ConsumerConfig(
        deliver_subject=inbox,
        deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
        ack_policy=AckPolicy.NONE,
        filter_subjects=[KEY_SUBJECT + key for key in keys],
        inactive_threshold=30,
        mem_storage=True,
    )
    await bus.connected()
    try:
        async with asyncio.timeout(_READ_SECONDS):
            subscription = await bus.client.subscribe(inbox, cb=received)
            try:
                info = await bus.jetstream.add_consumer(f"KV_{BUCKET}", config=config)
                if info.num_pending or (info.delivered and info.delivered.consumer_seq):
                    await whole.wait()
            finally:
                await subscription.unsubscribe()  # and the server drops the consumer by itself
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise TryAgain(Code.INTERNAL, f"the bucket {BUCKET} cannot be read: {error!r}") from error
    return found


async def last_message(bus: Bus, stream: str, subject: str) -> bytes | None:
    """What was said last on a subject; None when nothing is kept. TryAgain when that cannot be found out."""
    try:
        message = await bus.jetstream.get_last_msg(stream, subject)
    except nats.js.errors.NotFoundError:
        return None
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise TryAgain(Code.INTERNAL, f"stream {stream} cannot be read: {error!r}") from error
    return None if "KV-Operation" in (message.headers or {}) else message.data


async def last_value(bus: Bus, key: str) -> bytes | None:
    """What the bucket has for a key; None when it has none."""
    return await last_message(bus, f"KV_{BUCKET}", KEY_SUBJECT + key)
