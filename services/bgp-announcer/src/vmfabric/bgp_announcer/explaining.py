"""What an operator is told of this node's FRR, and of what the reflectors tell it of other nodes."""

from collections.abc import Sequence

from vmfabric.bgp_announcer.domain.configuration import wanted
from vmfabric.bgp_announcer.domain.explanation import explain_frr, explain_routes
from vmfabric.bgp_announcer.domain.plan import plan
from vmfabric.bgp_announcer.domain.routes import lost
from vmfabric.bgp_announcer.ports import Frr, FrrError
from vmfabric.contract.addresses import Family, HostAddress
from vmfabric.contract.desired import DesiredVm, FabricNode
from vmfabric.contract.errors import Code, TryAgain
from vmfabric.contract.explanation import (
    ExplainOnNode,
    Finding,
    Findings,
    Reflected,
    ReflectedRoute,
    ShowReflected,
)
from vmfabric.runtime.desired import DesiredView, fabric_node

_SELECTED = 20
"""Prefixes of which zebra is asked; each takes a process."""


class Explaining:
    """Reads FRR, and changes nothing."""

    def __init__(self, view: DesiredView, frr: Frr) -> None:
        self._view = view
        self._frr = frr

    async def explain(self, asked: ExplainOnNode) -> Findings:
        """What FRR has of a VM now, or what it should have and has not."""
        node = fabric_node(self._view)
        vms = {vm: it.value for vm, it in self._view.vms.items() if asked.vm in {None, vm}}
        if node is None or (asked.vm is not None and not vms):
            sentence = f"the bgp-announcer has not been told of {asked.vm or 'its node'}; does it reach the bus?"
            return Findings(findings=(Finding(about="bgp-announcer", is_right=False, sentence=sentence),))
        findings = await self._explain(node, list(vms.values()))
        return Findings(findings=tuple(it for it in findings if asked.vm is not None or not it.is_right))

    async def _explain(self, node: FabricNode, vms: Sequence[DesiredVm]) -> list[Finding]:
        pools = self._view.pools
        should = wanted(node, pools.value if pools else None)
        try:
            missing = [str(change) for change in plan(should, await self._frr.running(), node.asn)]
            found = await self._frr.routes([prefix for vm in vms for prefix in vm.prefixes()])
            lacking = [prefix for vm in vms for prefix in lost(vm, found)]
            selected = {prefix: await self._frr.selected(prefix) for prefix in lacking[:_SELECTED]}
            of_frr = list(explain_frr(node, missing, await self._frr.sessions()))
        except FrrError as error:
            return [Finding(about="frr", is_right=False, sentence=error.sentence)]
        return of_frr + [finding for vm in vms for finding in explain_routes(vm, node, found, selected)]

    async def reflected(self, asked: ShowReflected) -> Reflected:
        """What the reflectors tell this node, whoever announced it. TryAgain when FRR does not say."""
        node = fabric_node(self._view)
        if node is None:
            raise TryAgain(Code.INTERNAL, "the bgp-announcer has not been told of its node; does it reach the bus?")
        sessions = await self._frr.sessions()
        ours = [reflector.address for reflector in node.reflectors]
        up = [it for it in ours if it in sessions and sessions[it].is_established]
        return Reflected(routes={reflector: await self._told_by(reflector, asked) for reflector in up})

    async def _told_by(self, reflector: HostAddress, asked: ShowReflected) -> tuple[ReflectedRoute, ...]:
        next_hops, prefixes = frozenset(asked.next_hops), frozenset(asked.prefixes)
        received = [it for family in Family for it in await self._frr.received(reflector, family)]
        return tuple(it for it in received if it.next_hop in next_hops or it.prefix in prefixes)
