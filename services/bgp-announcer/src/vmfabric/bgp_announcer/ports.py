"""What the announcer needs from FRR."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from vmfabric.bgp_announcer.domain.lines import Line
from vmfabric.bgp_announcer.domain.plan import Change
from vmfabric.bgp_announcer.domain.routes import Found, Session
from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.errors import VmfabricError
from vmfabric.contract.explanation import ReflectedRoute


class FrrError(VmfabricError):
    """FRR did not answer, or not as it should; nothing is known of what it has."""


class FrrDownError(FrrError):
    """bgpd does not run."""


class Frr(Protocol):
    """The FRR of this node. A read that fails is an FrrError, never an empty answer."""

    async def running(self) -> tuple[Line, ...]:
        """Its configuration."""
        ...

    async def configure(self, changes: Sequence[Change]) -> None:
        """Enter these lines; an FrrError names those that it did not take."""
        ...

    async def routes(self, prefixes: Sequence[Prefix]) -> Found:
        """What it says of each of these prefixes."""
        ...

    async def selected(self, prefix: Prefix) -> str:
        """In words, the route that zebra prefers for this very prefix."""
        ...

    async def metric(self, prefix: Prefix) -> int | None:
        """Of the kernel's route to this prefix that zebra has selected; None when it has selected none of them."""
        ...

    async def received(self, reflector: HostAddress, family: Family) -> Sequence[ReflectedRoute]:
        """What a reflector tells this node. With ten thousand routes bgpd does nothing else for 0.2 s."""
        ...

    async def sessions(self) -> Mapping[HostAddress, Session]:
        """Its neighbours. FrrDownError when bgpd does not run, so that there is no session at all."""
        ...
