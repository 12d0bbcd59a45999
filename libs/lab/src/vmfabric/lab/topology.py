"""The topology file: which hosts the lab has, and where they are plugged in.

Every name of a namespace, link or FRR instance that the lab makes follows from the topology alone, so whoever holds
the topology can find and remove all of it.
"""

from collections.abc import Iterator
from importlib import resources
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

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
"""The host of the two bridges that stand for the fabric's switch and the management network's."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fabric(_Model):
    """The network that carries the VMs' packets."""

    ipv4: IPv4Network
    ipv6: IPv6Network
    mtu: Annotated[int, Field(ge=1280, le=9216)] = 1500


class Management(_Model):
    """The network between the nodes and the control plane. It can be cut without cutting the fabric."""

    ipv4: IPv4Network
    control: IPv4Address
    """Where the nodes find the bus."""


class Router(_Model):
    """A host on the fabric that runs FRR."""

    name: HostName
    ipv4: IPv4Address
    ipv6: IPv6Address


class Node(Router):
    """A hypervisor: a router with the node services on it and a link to the management network."""

    cluster: ClusterName
    management: IPv4Address


class Topology(_Model):
    """A data centre."""

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
    asn: Annotated[int, Field(ge=1, le=4294967294)]
    fabric: Fabric
    management: Management
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]
    reflectors: Annotated[tuple[Router, ...], Field(min_length=1)]
    core: Router

    @property
    def routers(self) -> tuple[Router, ...]:
        """Every host that runs FRR."""
        return (*self.nodes, *self.reflectors, self.core)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that somebody may want to run a command on."""
        return (CONTROL, *(router.name for router in self.routers))

    def namespace(self, host: str) -> str:
        """The network namespace of a host; also the name of its FRR instance."""
        return f"{self.name}-{host}"

    def namespaces(self) -> tuple[str, ...]:
        """The namespaces of all hosts, without the guests'."""
        return tuple(self.namespace(host) for host in (SWITCH, *self.hosts))

    def node(self, name: str) -> Node:
        """The node of this name. LabError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(
            f"there is no node {name!r} in lab {self.name}; it has {', '.join(n.name for n in self.nodes)}"
        )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [SWITCH, CONTROL, *(router.name for router in self.routers)]
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
        for router in self.routers:
            yield router.name, router.ipv4, self.fabric.ipv4
            yield router.name, router.ipv6, self.fabric.ipv6
        for node in self.nodes:
            yield node.name, node.management, self.management.ipv4


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


def load(path: Path | None, **copies: int | None) -> Topology:
    """The topology in a file, or the lab's own without one.

    `copies` says how many there are of `nats`, `control` and `postgres`; what is None is as the file says.
    """
    instead = {name: value for name, value in copies.items() if value is not None}
    if path is not None:
        try:
            return parse(path.read_text(), origin=str(path), **instead)
        except UnicodeDecodeError as error:
            raise LabError(f"{path} is not text in UTF-8: {error.reason}") from error
    return parse(
        resources.files("vmfabric.lab").joinpath("default.yaml").read_text(), origin="the default topology", **instead
    )
