"""Names that a VM has in the kernel. A pure function of (cluster, VM), so they survive everything."""

import base64
import hashlib

from vmfabric.contract.names import ClusterName, InterfaceName, VmName

ALIAS_PREFIX = "vmfabric:"
"""Begins the alias (IFLA_IFALIAS) of every link of ours, and of no other."""

_LONGEST = 15
_HOST_SUFFIX = "_net0"
_GUEST_SUFFIX = "_eth0"


def full_name(vm: VmName) -> str:
    """The name that people look for: `<vm>_net0`. It may be too long for the kernel."""
    return vm + _HOST_SUFFIX


def interface_name(cluster: ClusterName, vm: VmName) -> InterfaceName:
    """The host's side: `<vm>_net0`, or a short stable name where that is over 15 bytes (IFNAMSIZ - 1)."""
    return _fitting(cluster, vm, _HOST_SUFFIX)


def guest_interface_name(cluster: ClusterName, vm: VmName) -> InterfaceName:
    """The guest's end of a veth, until the hypervisor moves it into the container."""
    return _fitting(cluster, vm, _GUEST_SUFFIX)


def alternative_name(cluster: ClusterName, vm: VmName) -> str | None:
    """The full name, as an alternative interface name, where the kernel's name is a short one."""
    full = full_name(vm)
    return None if interface_name(cluster, vm) == full else full


def alias(cluster: ClusterName, vm: VmName) -> str:
    """The mark by which a link is known as ours, and whose it is."""
    return f"{ALIAS_PREFIX}{cluster}/{vm}"


def _fitting(cluster: ClusterName, vm: VmName, suffix: str) -> InterfaceName:
    if len(vm + suffix) <= _LONGEST:
        return vm + suffix
    digest = hashlib.sha256(f"{cluster}/{vm}".encode()).digest()
    # The underscore keeps it apart from every VM's own name: those have none.
    return f"v_{base64.b32encode(digest).decode().lower()[:8]}{suffix}"
