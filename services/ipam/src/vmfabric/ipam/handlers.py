"""Which event goes to which function."""

from vmfabric.contract.iface import IfaceRemoved
from vmfabric.contract.vm import VmDeleting, VmMigrated, VmPlaced
from vmfabric.ipam.domain.lease import Said, VmKey
from vmfabric.ipam.domain.leasing import Notice
from vmfabric.ipam.writer import Writer
from vmfabric.runtime.message import AnyRoute, Message, Route


class Handlers:
    """Each returns when what follows is committed, its answer in the outbox."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def routes(self) -> tuple[AnyRoute, ...]:
        """The page of this service."""
        return (
            Route(VmPlaced, self.vm_placed),
            Route(VmDeleting, self.vm_deleting),
            Route(VmMigrated, self.vm_migrated),
            Route(IfaceRemoved, self.iface_removed),
        )

    async def vm_placed(self, message: Message[VmPlaced]) -> None:
        """Answers `ip.allocated` or `ip.refused`."""
        await self._writer.hear(_notice(Said.PLACED, message))

    async def vm_migrated(self, message: Message[VmMigrated]) -> None:
        """The addresses stay with the VM; the node that may let go of them is another one now."""
        await self._writer.hear(_notice(Said.PLACED, message))

    async def vm_deleting(self, message: Message[VmDeleting]) -> None:
        """Answers `ip.released`, at once or when the node has let go."""
        said = Said.DELETING if message.event.wired else Said.DELETING_UNWIRED
        await self._writer.hear(_notice(said, message))

    async def iface_removed(self, message: Message[IfaceRemoved]) -> None:
        """Answers `ip.released` when the scheduler has given the VM up."""
        await self._writer.hear(_notice(Said.REMOVED, message))


def _notice(
    said: Said, message: Message[VmPlaced] | Message[VmMigrated] | Message[VmDeleting] | Message[IfaceRemoved]
) -> Notice:
    event = message.event
    wishes = event.addresses if isinstance(event, VmPlaced) else None
    return Notice(said, VmKey(event.cluster, event.vm), event.node, event.generation, message.trace, wishes)
