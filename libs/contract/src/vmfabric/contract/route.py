"""Events of routes and BGP sessions: what the bgp-announcer says."""

from typing import Annotated, ClassVar

from pydantic import Field

from vmfabric.contract.addresses import Community, HostAddress, Prefix
from vmfabric.contract.dataplane import LOCAL_PREFERENCE
from vmfabric.contract.model import Fact, Part
from vmfabric.contract.names import ClusterName, NodeName, VmName
from vmfabric.contract.subjects import NODE, VM_ON_NODE, Template


class AnnouncedRoute(Part):
    """One prefix as FRR says that it advertises it."""

    prefix: Prefix
    communities: tuple[Community, ...]
    local_preference: int = LOCAL_PREFERENCE
    reflectors: tuple[HostAddress, ...]
    """Reflectors it is advertised to; at least one."""
    missing: tuple[HostAddress, ...] = ()
    """Reflectors of the cluster that do not have it yet."""


class RouteAnnounced(Fact):
    """Every prefix of the VM is advertised to at least one established reflector, read back from FRR."""

    subject_template: ClassVar[Template] = Template("route.announced", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Annotated[int, Field(ge=1)]
    routes: tuple[AnnouncedRoute, ...]


class LostRoute(Part):
    """One prefix that FRR should bring into BGP and does not."""

    prefix: Prefix
    selected: str
    """The route that FRR's zebra prefers for it, or that there is none."""


class RouteLost(Fact):
    """Prefixes of a VM that was announced have been missing in FRR for seconds, and nothing of ours explains it.

    `route.announced` is said again when they are back.
    """

    subject_template: ClassVar[Template] = Template("route.lost", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Annotated[int, Field(ge=1)]
    routes: tuple[LostRoute, ...]


class RouteWithdrawn(Fact):
    """FRR on this node advertises no prefix of the VM, read back from FRR."""

    subject_template: ClassVar[Template] = Template("route.withdrawn", VM_ON_NODE)

    cluster: ClusterName
    vm: VmName
    node: NodeName
    generation: Annotated[int, Field(ge=1)]


class _BgpSession(Fact):
    cluster: ClusterName
    node: NodeName
    reflector: HostAddress


class BgpSessionUp(_BgpSession):
    """A session with a reflector is established."""

    subject_template: ClassVar[Template] = Template("bgp.session.up", NODE)


class BgpSessionDown(_BgpSession):
    """A session with a reflector is not established any more."""

    subject_template: ClassVar[Template] = Template("bgp.session.down", NODE)

    reason: str
    """What FRR gives as the last reason."""
