"""The topology file: which hosts the lab has, and where they are plugged in.

Every name of a namespace, link or FRR instance that the lab makes follows from the topology alone, so whoever holds
the topology can find and remove all of it.
"""

from collections.abc import Iterable, Iterator
from importlib import resources
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from vmfabric.contract.cluster import NetworkType, Upstream
from vmfabric.contract.names import ClusterName
from vmfabric.lab.errors import LabError

LabName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,9}$")]
"""The first part of every name that the lab makes: 1 to 10 characters of `[a-z0-9]`."""

HostName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,11}$")]
"""A host: 1 to 12 characters of `[a-z0-9]`, so that a switch port `f-<host>` is an interface name."""

SettingName = Annotated[str, StringConstraints(pattern=r"^VMFABRIC_[A-Z_]+$")]
"""A variable of a service's environment."""

CONTROL = "control"
"""The host of nats-server, Postgres, scheduler and ipam."""
SWITCH = "switch"
"""The host of the bridges that stand for the switches: of each kind of network, and of the management network."""

PACKAGED = ("switching", "routing", "all-types")
"""Topologies that come with the lab, beside the default one."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fabric(_Model):
    """The network that carries the VMs' packets."""

    ipv4: IPv4Network
    ipv6: IPv6Network
    mtu: Annotated[int, Field(ge=1280, le=9216)] = 1500


class Management(_Model):
    """The network between the nodes and the control plane. It can be cut without cutting the others."""

    ipv4: IPv4Network
    control: IPv4Address
    """Where the nodes find the bus."""


class Host(_Model):
    """A host on one of the networks."""

    name: HostName
    ipv4: IPv4Address


class Router(Host):
    """A host with an address of each family. On the fabric it runs FRR."""

    ipv6: IPv6Address


class Node(Router):
    """A hypervisor: the node services run on it, and it has a link to the management network."""

    cluster: ClusterName
    management: IPv4Address


class RentedNode(Host):
    """A hypervisor at a provider, who sends it addresses for its VMs."""

    cluster: ClusterName
    management: IPv4Address
    ipv6: IPv6Interface
    """Its address in the /64 that the provider sends to it; the node-agent configures it."""
    subnets: tuple[IPv4Network, ...] = ()
    """What the provider sends to it beside its own address."""
    upstream: Upstream


AnyNode = Node | RentedNode


class Switching(Fabric):
    """A physical network: a switch, nodes whose NICs are in it, and the router that is its gateway."""

    gateway: Router
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]

    @property
    def hosts(self) -> tuple[Router, ...]:
        """All on it."""
        return (self.gateway, *self.nodes)


class Routing(_Model):
    """A provider's network: a switch that takes from each server only what its NIC has sent, and a router."""

    ipv4: IPv4Network
    """Of the servers' own addresses. IPv6 goes over link-local addresses; the router's is always the same."""
    provider: Router
    nodes: Annotated[tuple[RentedNode, ...], Field(min_length=1)]

    @property
    def hosts(self) -> tuple[Router | RentedNode, ...]:
        """All on it."""
        return (self.provider, *self.nodes)


class Topology(_Model):
    """A data centre: a fabric with its routers, a physical network, a provider's network, or some of these."""

    name: LabName
    port: Annotated[int, Field(ge=1, le=65535)] = 4222
    """Operators on this machine reach the bus at 127.0.0.1 and this port."""
    nats: Literal[1, 3] = 1
    """How many nats-servers: three are a cluster, and keep each stream three times."""
    control: Literal[1, 2] = 1
    """How many processes of the scheduler and of ipam: of two, one waits until it is needed."""
    postgres: Literal[1, 2] = 1
    """How many Postgres servers: the second is a synchronous standby of the first."""
    settable_clocks: bool = False
    """Whether the wall clock of each host can be set; needs libfaketime."""
    settings: dict[SettingName, str] = {}
    """Settings of the services that differ from their defaults, by the variable of the environment."""
    management: Management
    asn: Annotated[int, Field(ge=1, le=4294967294)] | None = None
    fabric: Fabric | None = None
    nodes: tuple[Node, ...] = ()
    """Those on the fabric."""
    reflectors: tuple[Router, ...] = ()
    core: Router | None = None
    switching: Switching | None = None
    routing: Routing | None = None

    @property
    def routers(self) -> tuple[Router, ...]:
        """Every host that runs FRR."""
        return (*self.nodes, *self.reflectors, *((self.core,) if self.core else ()))

    @property
    def all_nodes(self) -> tuple[AnyNode, ...]:
        """The hypervisors of all networks."""
        parts = (self.switching, self.routing)
        return (*self.nodes, *(node for part in parts if part is not None for node in part.nodes))

    @property
    def network_hosts(self) -> tuple[Router | RentedNode, ...]:
        """Every host on one of the networks."""
        parts = (part for part in (self.switching, self.routing) if part is not None)
        return (*self.routers, *(host for part in parts for host in part.hosts))

    @property
    def types(self) -> tuple[NetworkType, ...]:
        """The types of clusters that it has nodes for."""
        return tuple(dict.fromkeys(self.type_of(node) for node in self.all_nodes))

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that somebody may want to run a command on."""
        return (CONTROL, *(host.name for host in self.network_hosts))

    def namespace(self, host: str) -> str:
        """The network namespace of a host; also the name of its FRR instance."""
        return f"{self.name}-{host}"

    def namespaces(self) -> tuple[str, ...]:
        """The namespaces of all hosts, without the guests'."""
        return tuple(self.namespace(host) for host in (SWITCH, *self.hosts))

    def node(self, name: str) -> AnyNode:
        """The node of this name. LabError when there is none."""
        for node in self.all_nodes:
            if node.name == name:
                return node
        raise LabError(
            f"there is no node {name!r} in lab {self.name}; it has {', '.join(n.name for n in self.all_nodes)}"
        )

    def type_of(self, node: AnyNode) -> NetworkType:
        """The type of the cluster that a node is of."""
        if isinstance(node, RentedNode):
            return NetworkType.ROUTING
        return NetworkType.IP_FABRIC if node in self.nodes else NetworkType.SWITCHING

    @model_validator(mode="after")
    def _has_nodes(self) -> Self:
        fabric = {
            "asn": self.asn,
            "fabric": self.fabric,
            "nodes": self.nodes,
            "reflectors": self.reflectors,
            "core": self.core,
        }
        missing = [name for name, value in fabric.items() if not value]
        if missing and len(missing) < len(fabric):
            raise ValueError(f"{' and '.join(missing)} missing: a fabric has all of {', '.join(fabric)}")
        if not self.all_nodes:
            raise ValueError("there is no node: neither a fabric nor `switching` nor `routing`")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [SWITCH, *self.hosts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"host {name!r} is named twice, or takes the name of one that every lab has")
        return self

    @model_validator(mode="after")
    def _addresses_fit(self) -> Self:
        seen: dict[IPv4Address | IPv6Address, str] = {}
        for owner, address, network in self._addresses():
            if address not in network:
                raise ValueError(f"{owner} has address {address}, which is outside of {network}")
            if isinstance(address, IPv4Address) and address in (network.network_address, network.broadcast_address):
                raise ValueError(f"{owner} has address {address}, which no host of {network} can have")
            if address in seen:
                raise ValueError(f"{owner} and {seen[address]} both have address {address}")
            seen[address] = owner
        return self

    def _addresses(self) -> Iterator[tuple[str, IPv4Address | IPv6Address, IPv4Network | IPv6Network]]:
        yield CONTROL, self.management.control, self.management.ipv4
        if self.fabric is not None:
            yield from _on(self.fabric, self.routers)
        if self.switching is not None:
            yield from _on(self.switching, self.switching.hosts)
        if self.routing is not None:
            yield from ((host.name, host.ipv4, self.routing.ipv4) for host in self.routing.hosts)
        for node in self.all_nodes:
            yield node.name, node.management, self.management.ipv4


def _on(
    network: Fabric, hosts: Iterable[Router]
) -> Iterator[tuple[str, IPv4Address | IPv6Address, IPv4Network | IPv6Network]]:
    for host in hosts:
        yield host.name, host.ipv4, network.ipv4
        yield host.name, host.ipv6, network.ipv6


def parse(text: str, *, origin: str, **instead: int) -> Topology:
    """A topology from the text of a YAML file, with some values `instead` of its own. `origin` names the file in the
    LabError of a bad one.
    """
    try:
        read = yaml.safe_load(text)
        return Topology.model_validate(read | instead if isinstance(read, dict) else read)
    except yaml.YAMLError as error:
        raise LabError(f"{origin} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'topology'}: {item['msg']}" for item in error.errors()
        )
        raise LabError(f"{origin} is not a topology: {wrong}") from error


def load(which: str | None, **copies: int | None) -> Topology:
    """The topology of a file, or of a name in PACKAGED, or the lab's own without either.

    `copies` says how many there are of `nats`, `control` and `postgres`; what is None is as the file says.
    """
    instead = {name: value for name, value in copies.items() if value is not None}
    if which is None or which in PACKAGED:
        name = which or "default"
        text = resources.files("vmfabric.lab").joinpath(f"{name}.yaml").read_text()
        return parse(text, origin=f"the {name} topology", **instead)
    try:
        return parse(Path(which).read_text(), origin=which, **instead)
    except UnicodeDecodeError as error:
        raise LabError(f"{which} is not text in UTF-8: {error.reason}") from error
