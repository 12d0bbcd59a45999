"""The order that the kernel wants, and what all operations on a link have."""

from dataclasses import dataclass
from enum import IntEnum

from vmfabric.contract.names import InterfaceName, VmName


class Stage(IntEnum):
    """Operations of one stage are done for all VMs before those of the next."""

    NODE = 0
    REMOVE_ROUTE = 1
    SET_DOWN = 2
    REMOVE_GUARD = 3
    DELETE_LINK = 4
    CREATE_LINK = 5
    NAME = 6
    SYSCTL = 7
    ADDRESS = 8
    GUARD = 9
    EGRESS = 10
    JOIN = 11
    SET_UP = 12
    ADD_ROUTE = 13
    RETIRE_ROUTE = 14


@dataclass(frozen=True, slots=True)
class OfLink:
    """It concerns one link."""

    vm: VmName | None
    """None: the link is the node's."""
    interface: InterfaceName
