"""What the node says of its VMs."""

from collections.abc import Iterable

from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.iface import GuestNetwork, IfaceReady, IfaceRemoved
from vmfabric.node_agent.domain.actual import Actual
from vmfabric.node_agent.domain.guest_config.form import guest_config
from vmfabric.node_agent.domain.naming import ALIAS_PREFIX, BRIDGE_ALIAS
from vmfabric.node_agent.domain.port import port_of
from vmfabric.runtime.snapshot import Confirmed


def confirmation(desired: DesiredVm) -> IfaceReady | IfaceRemoved:
    """The fact that says that the kernel is as desired."""
    if desired.presence is Presence.ABSENT:
        return IfaceRemoved(cluster=desired.cluster, vm=desired.vm, node=desired.node, generation=desired.generation)
    port = port_of(desired)
    return IfaceReady(
        cluster=desired.cluster,
        vm=desired.vm,
        node=desired.node,
        generation=desired.generation,
        interface=port.interface,
        guest_interface=port.guest_interface,
        guest=GuestNetwork(
            mac=desired.mac,
            mtu=desired.mtu,
            addresses=desired.guest_addresses,
        ),
        guest_config=guest_config(desired, port.guest_interface),
    )


def is_news(desired: DesiredVm, last: Confirmed | None) -> bool:
    """Whether the fact says more than the last one: while a VM stays wired, it makes no difference what is routed.
    The same said once more is an answer to somebody who asks again.
    """
    if last is None or last.generation != desired.generation or Presence.ABSENT in {desired.presence, last.presence}:
        return True
    return last.presence is desired.presence


def own_addresses(actual: Actual) -> Iterable[str]:
    """The node's own addresses as text, in order: those of our ports, loopback and link-local ones left out."""
    return sorted(
        {
            str(address.ip)
            for link in actual.links.values()
            if link.alias == BRIDGE_ALIAS or not (link.alias or "").startswith(ALIAS_PREFIX)
            for address in link.addresses
            if not (address.ip.is_link_local or address.ip.is_loopback)
        }
    )
