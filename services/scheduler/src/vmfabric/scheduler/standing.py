"""Whether the database is the one that everything was done with, or an older one: a backup, or a standby that was
behind when it was promoted.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from vmfabric.contract.errors import TryAgain
from vmfabric.runtime.desired import handed_out_in, vms_in
from vmfabric.runtime.service import Interrupted
from vmfabric.scheduler.ports import Store
from vmfabric.scheduler.transaction import transaction

_AGAIN_SECONDS = 10.0

ReadBucket = Callable[[], Awaitable[Mapping[str, bytes]]]
"""The desired state of all VMs, and what was handed out."""

log = structlog.get_logger()


class BehindError(Interrupted):
    """The nodes have been told more than the database knows."""


async def check_standing(store: Store, read_bucket: ReadBucket, *, accepted: int) -> None:
    """Returns when the database has handed out every generation that the bucket has, or an operator accepts less.

    Those of removals count too, since no VM's key tells of them.

    BehindError after a while when it has not: such a database would give generations and addresses a second time.
    """
    try:
        bucket = await read_bucket()
    except TryAgain as error:
        raise Interrupted(f"whether the database is up to date cannot be seen: {error.sentence}") from error
    told = {value.generation: f"{value.node} was told of {value.vm}" for value in vms_in(bucket)}
    told |= {value.generation: "a VM was removed" for value in handed_out_in(bucket)}
    newest = max(told, default=0)
    async with transaction(store) as tx:
        known = await tx.rows.last_generation()
        if newest <= known:
            return
        if newest <= accepted:
            await tx.rows.raise_generation(newest)
            log.warning("database.accepted", generation=newest, database_had=known)
            return
    sentence = (
        f"the database has handed out generations up to {known}, and {told[newest]} with generation {newest}: the "
        "database is older than what was done, as a standby is that was behind. Nothing is done with it. Use a "
        f"newer one; or set VMFABRIC_ACCEPTED_GENERATION={newest} to go on with this one: VMs that it does not know "
        "stay as they are, and node.audit names them; VMs whose removal it does not know come back"
    )
    log.error("database.behind", sentence=sentence)
    await asyncio.sleep(_AGAIN_SECONDS)
    raise BehindError(sentence)
