"""FRR behind the port."""

from collections.abc import Mapping, Sequence

from vmfabric.bgp_announcer.domain.lines import Line, parse
from vmfabric.bgp_announcer.domain.plan import Change
from vmfabric.bgp_announcer.domain.routes import Found, Session
from vmfabric.bgp_announcer.frr import parse as shown
from vmfabric.bgp_announcer.frr.script import script
from vmfabric.bgp_announcer.frr.vtysh import Vtysh
from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.explanation import ReflectedRoute


class VtyshFrr:
    """The FRR of this node through vtysh."""

    def __init__(self, vtysh: Vtysh) -> None:
        self._vtysh = vtysh

    async def running(self) -> tuple[Line, ...]:
        """Its configuration."""
        return parse(await self._vtysh.running_config())

    async def configure(self, changes: Sequence[Change]) -> None:
        """Enter these lines."""
        await self._vtysh.enter(script(changes))

    async def routes(self, prefixes: Sequence[Prefix]) -> Found:
        """One question for each, in the open session."""
        return {
            prefix: shown.route(await self._vtysh.ask(f"show bgp {Family.of(prefix)} unicast {prefix} json"))
            for prefix in prefixes
        }

    async def selected(self, prefix: Prefix) -> str:
        """Of one prefix; 30 ms."""
        return shown.selected(await self._zebra_has(prefix), prefix)

    async def metric(self, prefix: Prefix) -> int | None:
        """Of one prefix; 30 ms."""
        return shown.metric(await self._zebra_has(prefix), prefix)

    async def _zebra_has(self, prefix: Prefix) -> str:
        word = "ip" if Family.of(prefix) is Family.IPV4 else "ipv6"
        return await self._vtysh.ask_zebra(f"show {word} route {prefix} json")

    async def received(self, reflector: HostAddress, family: Family) -> Sequence[ReflectedRoute]:
        """Before any filter of this node."""
        question = f"show bgp {family} unicast neighbors {reflector} received-routes json"
        return shown.received(await self._vtysh.ask(question))

    async def sessions(self) -> Mapping[HostAddress, Session]:
        """Both families run over the same sessions."""
        return shown.sessions(await self._vtysh.ask("show bgp ipv4 unicast summary json"))
