"""Addresses that are kept for somebody: which ones, and who may have them all the same."""

from collections.abc import Collection, Iterable, Iterator

from vmfabric.contract.addresses import HostAddress
from vmfabric.contract.addressing import Reservation
from vmfabric.contract.names import ResourceName
from vmfabric.ipam.domain.deadlines import Deadlines
from vmfabric.ipam.domain.lease import VmKey


class Reservations:
    """Every reservation, and whether its address is also held by a VM, or rests."""

    def __init__(self, reservations: Iterable[Reservation], in_use: Collection[HostAddress]) -> None:
        self.holds = Deadlines()
        """When those end that end by themselves."""
        self._of: dict[HostAddress, Reservation] = {}
        self._in_use: set[HostAddress] = set()
        for each in reservations:
            self.put(each, is_in_use=each.address in in_use)

    def get(self, address: HostAddress) -> Reservation | None:
        """For whom the address is kept."""
        return self._of.get(address)

    def of_pool(self, pool: ResourceName) -> Iterator[Reservation]:
        """Those of one pool."""
        return (each for each in self._of.values() if each.pool == pool)

    def put(self, reservation: Reservation, *, is_in_use: bool) -> None:
        """Add it, or put it in the place of an earlier one of the same address."""
        address = reservation.address
        self._of[address] = reservation
        if is_in_use:
            self._in_use.add(address)
        if reservation.expires_at is None:
            self.holds.drop(address)
        else:
            self.holds.set(address, reservation.expires_at)

    def drop(self, address: HostAddress) -> None:
        """The address is not kept any more."""
        del self._of[address]
        self._in_use.discard(address)
        self.holds.drop(address)

    def is_in_use(self, address: HostAddress) -> bool:
        """Whether a VM has this reserved address, or it rests."""
        return address in self._in_use

    def admits(self, key: VmKey, address: HostAddress) -> bool:
        """Whether this VM may have the address now because it is kept for it."""
        return self.is_for(key, address) and address not in self._in_use

    def is_for(self, key: VmKey, address: HostAddress) -> bool:
        """Whether the address is kept for this VM."""
        reservation = self._of.get(address)
        return reservation is not None and (reservation.cluster, reservation.for_vm) == key

    def come_into_use(self, address: HostAddress) -> None:
        """Its VM has it."""
        self._in_use.add(address)

    def go_out_of_use(self, address: HostAddress) -> None:
        """No VM has it, and it does not rest."""
        self._in_use.discard(address)
