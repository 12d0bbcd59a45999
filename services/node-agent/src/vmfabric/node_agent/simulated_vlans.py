"""The VLANs of bridges and their ports in the kernel in memory."""

from dataclasses import replace
from typing import assert_never

from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain.actual import Link
from vmfabric.node_agent.simulated_held import RefusedError


def with_vlans(link: Link, operation: bridges.VlanOperation) -> Link:
    """The link after the operation. RefusedError when a kernel would refuse it."""
    match operation:
        case bridges.SetVlanFiltering(is_on=is_on):
            if link.filtering is None:
                raise RefusedError(f"{link.name} cannot filter VLANs")
            return replace(link, filtering=replace(link.filtering, is_on=is_on))
        case bridges.JoinVlan() | bridges.LeaveVlans() if link.master is None:
            raise RefusedError(f"{link.name} is no port of a bridge")
        case bridges.JoinVlan(vlan=joined):
            others = {it for it in link.vlans if it.number != joined.number}
            if joined.comes_untagged:  # which is so of one VLAN
                others = {replace(it, comes_untagged=False) for it in others}
            return replace(link, vlans=frozenset(others | {joined}))
        case bridges.LeaveVlans(first=first, last=last):
            return replace(link, vlans=frozenset(it for it in link.vlans if not first <= it.number <= last))
        case _:
            assert_never(operation)
