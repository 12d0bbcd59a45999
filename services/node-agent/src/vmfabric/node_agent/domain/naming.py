"""Names that a VM has in the kernel. A pure function of (cluster, VM), so they survive everything."""

import base64
import hashlib

from vmfabric.contract.addresses import Mac
from vmfabric.contract.names import ClusterName, InterfaceName, NodeName, VmName

ALIAS_PREFIX = "vmfabric:"
"""Begins the alias (IFLA_IFALIAS) of every link of ours, and of no other."""

BRIDGE_ALIAS = f"{ALIAS_PREFIX}bridge"
"""The alias of the bridge that we make. No VM's has it: theirs have a slash."""

_LONGEST = 15
_HOST_SUFFIX = "_net0"
_GUEST_SUFFIX = "_eth0"
_PORT_PREFIX = "vnet"


def full_name(vm: VmName) -> str:
    """The name that people look for: `<vm>_net0`. It may be too long for the kernel."""
    return vm + _HOST_SUFFIX


def interface_name(cluster: ClusterName, vm: VmName) -> InterfaceName:
    """The host's side: `<vm>_net0`, or a short stable name where that is over 15 bytes (IFNAMSIZ - 1)."""
    return _fitting(cluster, vm, _HOST_SUFFIX)


def port_name(cluster: ClusterName, vm: VmName) -> InterfaceName:
    """The host's side where it is a port of a bridge: `vnet` and a short stable hash."""
    return f"{_PORT_PREFIX}{_short_hash(f'{cluster}/{vm}')}"


def guest_interface_name(cluster: ClusterName, vm: VmName) -> InterfaceName:
    """The guest's end of a veth, until the hypervisor moves it into the container."""
    return _fitting(cluster, vm, _GUEST_SUFFIX)


def alternative_name(vm: VmName, interface: InterfaceName) -> str | None:
    """The full name, as an alternative interface name, where the kernel's name is a short one."""
    full = full_name(vm)
    return None if interface == full else full


def port_mac(guest: Mac) -> Mac:
    """The host's side of a port of a bridge: never the guest's, which the bridge would take for its own."""
    return f"fe{guest[2:]}" if not guest.startswith("fe:") else f"fa{guest[2:]}"


def bridge_mac(cluster: ClusterName, node: NodeName) -> Mac:
    """Of the bridge that a node routes to."""
    return f"02:{hashlib.sha256(f'{cluster}/{node}'.encode()).digest()[:5].hex(':')}"


def alias(cluster: ClusterName, vm: VmName) -> str:
    """The mark by which a link is known as ours, and whose it is."""
    return f"{ALIAS_PREFIX}{cluster}/{vm}"


def _fitting(cluster: ClusterName, vm: VmName, suffix: str) -> InterfaceName:
    if len(vm + suffix) <= _LONGEST:
        return vm + suffix
    # The underscore keeps it apart from every VM's own name: those have none.
    return f"v_{_short_hash(f'{cluster}/{vm}')}{suffix}"


def _short_hash(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:8]
