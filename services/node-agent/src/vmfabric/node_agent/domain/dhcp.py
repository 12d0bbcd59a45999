"""What dnsmasq is told, so that it answers the DHCP requests of the guests that want it, and of nobody else.

A guest is known by its MAC address, and by the interface that its requests arrive on. What it is given is the VM's as
long as it lives, so it is given without an end, and there are no leases to remember.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import assert_never

from vmfabric.contract.addresses import Mac
from vmfabric.contract.desired import DesiredVm, PointToPoint, Presence, Routed, Switched
from vmfabric.contract.names import InterfaceName, VmName
from vmfabric.node_agent.domain import naming
from vmfabric.node_agent.domain.actual import Link
from vmfabric.node_agent.domain.problems import Problem

_HEAD = (
    "# Written by vmfabric's node-agent, which undoes other changes.",
    "port=0",
    "no-hosts",
    "no-resolv",
    "bind-dynamic",
    "leasefile-ro",
    "dhcp-authoritative",
    "dhcp-ignore=tag:!known",
    "quiet-dhcp",
)
"""No DNS, nothing of the machine's own files. Interfaces may come later (bind-dynamic). There is no lease file, and a
guest that has its address from an earlier dnsmasq is told that it may keep it (dhcp-authoritative)."""

_POINT_TO_POINT = 31
"""A network of this length has no broadcast address (RFC 3021), and a longer one neither."""
_BROADCAST = 28
"""The option (RFC 2132, 5.3), for which dnsmasq has no name."""


@dataclass(frozen=True, slots=True)
class Responder:
    """Where the requests of a guest arrive, and from which address of the node they are answered."""

    interface: InterfaceName
    address: IPv4Address
    holder: str
    """The interface that has the address. Where it is another one, dnsmasq takes requests for arrived there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one guest is told."""

    vm: VmName
    mac: Mac
    address: IPv4Interface
    gateway: IPv4Address | None
    mtu: int
    responder: Responder

    @property
    def is_gateway_outside(self) -> bool:
        """Whether it is in no network of the guest's, which must be told then that it is on the link."""
        return self.gateway is not None and self.gateway not in self.address.network

    @property
    def broadcast(self) -> IPv4Address:
        """Of its network. With a /32 some clients make one up from the address's class, which may be a VM's."""
        has_one = self.address.network.prefixlen < _POINT_TO_POINT
        return self.address.network.broadcast_address if has_one else IPv4Address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class Serving:
    """What DHCP should be on this node."""

    answers: tuple[Answer, ...]
    problems: tuple[Problem, ...]
    """VMs that want DHCP and cannot have it."""

    @property
    def configuration(self) -> str | None:
        """The file that dnsmasq reads; None when there is nobody to answer."""
        return "".join(f"{line}\n" for line in _lines(self.answers)) if self.answers else None


def serving(desired: Iterable[DesiredVm], links: Mapping[str, Link]) -> Serving:
    """Who is to be answered. `links` are those that the node has now, by name."""
    answers: dict[IPv4Address, Answer] = {}
    problems = []
    wanted = (vm for vm in desired if vm.dhcp and vm.presence is not Presence.ABSENT)
    for vm in sorted(wanted, key=lambda vm: (vm.generation, vm.vm)):
        found = _answer(vm, links)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            # An address that is still another's here is a problem of the plan's; dnsmasq takes it once only.
            answers.setdefault(found.address.ip, found)
    return Serving(tuple(sorted(answers.values(), key=lambda answer: answer.vm)), tuple(problems))


def _answer(desired: DesiredVm, links: Mapping[str, Link]) -> Answer | Problem:
    for given in desired.guest_addresses:
        if isinstance(given.prefix, IPv4Interface):
            gateway = given.gateway if isinstance(given.gateway, IPv4Address) else None
            responder = _responder(desired, gateway, links)
            if responder is None:
                return Problem(desired.vm, _why_not(desired, gateway))
            return Answer(desired.vm, desired.mac, given.prefix, gateway, desired.mtu, responder)
    return Problem(desired.vm, "the VM wants DHCP, which gives IPv4 addresses only, and it has none: ask for one")


def _responder(desired: DesiredVm, gateway: IPv4Address | None, links: Mapping[str, Link]) -> Responder | None:
    wiring = desired.wiring
    match wiring:
        case PointToPoint(gateway=near) if isinstance(near.ipv4, IPv4Address):
            interface = naming.interface_name(desired.cluster, desired.vm)
            return Responder(interface, near.ipv4, holder=interface)
        case Switched(bridge=bridge, vlan=None):
            address = min(_addresses(links.get(bridge)), default=None)
            return None if address is None else Responder(bridge, address, holder=bridge)
        case Routed(bridge=bridge) if gateway is not None:
            holders = [link.name for link in links.values() if gateway in _addresses(link)]
            holder = bridge if bridge in holders else min(holders, default=None)
            return None if holder is None else Responder(bridge, gateway, holder)
        case PointToPoint() | Switched() | Routed():
            return None
        case _:
            assert_never(wiring)


def _addresses(link: Link | None) -> Iterator[IPv4Address]:
    for address in link.addresses if link is not None else ():
        if isinstance(address, IPv4Interface):
            yield address.ip


def _why_not(desired: DesiredVm, gateway: IPv4Address | None) -> str:
    match desired.wiring:
        case Switched(vlan=int(vlan)):
            why = f"is in VLAN {vlan}, where the node has no address to answer from"
        case Switched(bridge=bridge):
            why = f"is behind {bridge}, which has no IPv4 address to answer from: give it one"
        case _:
            why = f"no interface of the node has its gateway {gateway} to answer from"
    return f"the VM wants DHCP, but {why}; or configure the guest without DHCP"


def _lines(answers: tuple[Answer, ...]) -> Iterator[str]:
    yield from _HEAD
    responders = {answer.responder for answer in answers}
    for interface in sorted({name for it in responders for name in (it.interface, it.holder)}):
        yield f"interface={interface}"
    for holder, interface in sorted({(it.holder, it.interface) for it in responders if it.holder != it.interface}):
        yield f"bridge-interface={holder},{interface}"
    for answer in answers:
        yield ""
        yield from _of_guest(answer)


def _of_guest(answer: Answer) -> Iterator[str]:
    address, responder = answer.address, answer.responder
    # No interface has a colon in its name, so this is no tag that dnsmasq sets itself.
    tag = f"vm:{answer.vm}"
    yield f"# {answer.vm}"
    # To dnsmasq each address is a network of its own, beside that of the node; the guest is told its real mask.
    yield f"shared-network={responder.address},{address.ip}"
    yield f"dhcp-range={address.ip},static,255.255.255.255,infinite"
    yield f"dhcp-host=tag:{responder.holder},{answer.mac},set:{tag},{address.ip},infinite"
    yield f"dhcp-option-force=tag:{tag},option:netmask,{address.netmask}"
    yield f"dhcp-option-force=tag:{tag},{_BROADCAST},{answer.broadcast}"
    yield f"dhcp-option-force=tag:{tag},option:mtu,{answer.mtu}"
    if answer.gateway is not None:
        yield f"dhcp-option-force=tag:{tag},option:router,{answer.gateway}"
    if answer.is_gateway_outside:
        routes = f"{answer.gateway}/32,0.0.0.0,0.0.0.0/0,{answer.gateway}"
        yield f"dhcp-option-force=tag:{tag},option:classless-static-route,{routes}"
