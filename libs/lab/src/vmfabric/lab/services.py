"""The four services and the lab's hypervisor: which program runs on which host, with which settings."""

from vmfabric.lab import clocks, control_plane, namespaces
from vmfabric.lab.control_plane import DATABASE_SERVICES, copy_of
from vmfabric.lab.processes import Program, python
from vmfabric.lab.state import State
from vmfabric.lab.topology import CONTROL, AnyNode, Topology

HYPERVISOR = "hypervisor"

_MODULES = {
    "scheduler": "vmfabric.scheduler",
    "ipam": "vmfabric.ipam",
    "node-agent": "vmfabric.node_agent",
    "bgp-announcer": "vmfabric.bgp_announcer",
    HYPERVISOR: "vmfabric.lab.hypervisor",
}


def programs(state: State, topology: Topology) -> tuple[Program, ...]:
    """Every process of vmfabric in the lab."""
    return (
        *(
            _of_control(state, topology, service, number)
            for number in range(topology.control)
            for service in DATABASE_SERVICES
        ),
        *(
            _of_node(state, topology, node, service)
            for node in topology.all_nodes
            for service in of_node(topology, node)
        ),
    )


def of_node(topology: Topology, node: AnyNode) -> tuple[str, ...]:
    """The services that run on a node."""
    announcer = ("bgp-announcer",) if topology.type_of(node).is_announced else ()
    return ("node-agent", *announcer, HYPERVISOR)


def _of_control(state: State, topology: Topology, service: str, number: int) -> Program:
    return Program(
        copy_of(service, number),
        CONTROL,
        namespaces.inside(topology.namespace(CONTROL), *python(_MODULES[service])),
        {
            **_common(state, topology, CONTROL, service),
            "VMFABRIC_DATABASE_URL": control_plane.database_url(topology, service),
        },
    )


def _common(state: State, topology: Topology, host: str, service: str) -> dict[str, str]:
    has_own_clock = topology.settable_clocks and service != HYPERVISOR
    return {
        **(clocks.environment(state, host) if has_own_clock else {}),
        **topology.settings,
        "VMFABRIC_NATS_URL": control_plane.nats_url(topology),
        "VMFABRIC_NATS_REPLICAS": str(topology.nats),
    }


def _of_node(state: State, topology: Topology, node: AnyNode, service: str) -> Program:
    namespace = topology.namespace(node.name)
    command = python(_MODULES[service])
    return Program(
        service,
        node.name,
        # The hypervisor makes namespaces, which are names in the machine's mount namespace; ip-netns(8) leaves it.
        ("nsenter", f"--net={namespaces.DIRECTORY / namespace}", *command)
        if service == HYPERVISOR
        else namespaces.inside(namespace, *command),
        {
            **_common(state, topology, node.name, service),
            "VMFABRIC_CLUSTER": node.cluster,
            "VMFABRIC_NODE": node.name,
            "VMFABRIC_STATE_DIR": str(state.of_service(node.name, service)),
            "VMFABRIC_FRR_PATHSPACE": namespace,
            "VMFABRIC_GUEST_PREFIX": namespace,
        },
    )
