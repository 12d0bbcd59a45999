"""An FRR without FRR, for tests and the simulation: it reads a kernel's routes and keeps lines of configuration."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network

from vmfabric.bgp_announcer.domain.configuration import GRACEFUL_SHUTDOWN, GROUP, kernel_map
from vmfabric.bgp_announcer.domain.lines import Line, Section
from vmfabric.bgp_announcer.domain.plan import Change
from vmfabric.bgp_announcer.domain.routes import Found, Route, Session
from vmfabric.contract.addresses import Family, HostAddress, Prefix
from vmfabric.contract.dataplane import LOCAL_PREFERENCE
from vmfabric.contract.explanation import ReflectedRoute

KernelRoutes = Callable[[], Mapping[Prefix, int]]
"""The host routes of the node's kernel, each with its lowest metric: that one zebra selects."""

_NEGATIVE = ("no bgp ebgp-requires-policy", "no bgp default", "no bgp network")
"""Settings that are said by their absence."""
_PEER = re.compile(rf"neighbor (\S+) peer-group {GROUP}$")
_WELL_KNOWN = {GRACEFUL_SHUTDOWN: "65535:0"}
_METRIC = re.compile(r"match metric (\d+)$")
_PERMIT = re.compile(r"prefix-list \S+ permit (\S+)(?: ge (\d+))?(?: le (\d+))?$")


@dataclass(frozen=True, slots=True)
class _Filters:
    texts: frozenset[str]
    entries: Mapping[tuple[str, int], Sequence[str]]
    """What the entry of a route-map says that takes a metric."""
    peers: frozenset[HostAddress]
    permitted: tuple["_Permit", ...]


@dataclass(frozen=True, slots=True)
class _Permit:
    """An entry of a prefix list, and the lengths that it lets through."""

    block: Prefix
    shortest: int
    longest: int

    def lets_through(self, prefix: Prefix) -> bool:
        is_inside = self.block.version == prefix.version and _inside(prefix, self.block)
        return is_inside and self.shortest <= prefix.prefixlen <= self.longest


class SimulatedFrr:
    """Announces what its configuration lets through, to the reflectors that are up."""

    def __init__(self, kernel: KernelRoutes) -> None:
        self._kernel = kernel
        self._lines: dict[tuple[tuple[str, ...], str], Line] = {}
        self._last_heard: Mapping[Prefix, int] | None = None
        self._filters: _Filters | None = None
        """What the lines say; None since they changed."""
        self.up: set[HostAddress] = set()
        self.configured = 0
        """Lines entered since the start."""

    def restart(self) -> None:
        """FRR comes back with nothing."""
        self._lines.clear()
        self._filters = None
        self._last_heard = None

    def deafen(self) -> None:
        """Bgpd does not hear of the kernel's routes any more, until it asks for them anew."""
        self._last_heard = dict(self._kernel())

    def _heard(self) -> Mapping[Prefix, int]:
        return self._kernel() if self._last_heard is None else self._last_heard

    def announced(self) -> dict[Prefix, frozenset[HostAddress]]:
        """What the reflectors hear from this node."""
        peers = frozenset(self._peers() & self.up)
        return {prefix: peers for prefix, metric in self._heard().items() if peers and self._passes(prefix, metric)}

    async def running(self) -> tuple[Line, ...]:
        """Its configuration, without what is FRR's default."""
        return tuple(line for line in self._lines.values() if not _is_default(line.text))

    async def configure(self, changes: Sequence[Change]) -> None:
        """Enter these lines, as FRR does."""
        self._filters = None
        for change in changes:
            self.configured += 1
            if change.text.startswith("redistribute kernel"):
                self._last_heard = None
            if change.text.startswith("no ") and not change.text.startswith(_NEGATIVE):
                self._remove(change)
            else:
                self._add(change)

    async def routes(self, prefixes: Sequence[Prefix]) -> Found:
        """What it says of each."""
        kernel, peers = self._heard(), frozenset(self._peers() & self.up)
        return {
            prefix: self._route(prefix, kernel[prefix], peers)
            if prefix in kernel and self._passes(prefix, kernel[prefix])
            else None
            for prefix in prefixes
        }

    async def selected(self, prefix: Prefix) -> str:
        """The kernel's route, or none."""
        metric = self._kernel().get(prefix)
        return f"FRR knows no route to {prefix}" if metric is None else f"a kernel route of metric {metric}"

    async def metric(self, prefix: Prefix) -> int | None:
        """Of the kernel's route."""
        return self._kernel().get(prefix)

    async def received(self, reflector: HostAddress, family: Family) -> Sequence[ReflectedRoute]:
        """Nothing: there is no reflector behind it."""
        del reflector, family
        return ()

    def local_preference(self, prefix: Prefix) -> int:
        """What the reflectors hear of it."""
        return self._preference(Family.of(prefix), self._heard()[prefix])

    async def sessions(self) -> Mapping[HostAddress, Session]:
        """Its neighbours."""
        return {peer: Session(peer in self.up) for peer in sorted(self._peers(), key=str)}

    def _add(self, change: Change) -> None:
        self._unset(change.section, change.text)
        self._lines[change.section, change.text] = Line(change.section, change.text)

    def _unset(self, section: Section, text: str) -> None:
        """An entry of a route-map has one value of each setting."""
        if text.startswith("set "):
            what = text.split()[1]
            same = [place for place in self._lines if place[0] == section and place[1].startswith(f"set {what} ")]
            for place in same:
                del self._lines[place]

    def _remove(self, change: Change) -> None:
        text = change.text.removeprefix("no ")
        self._unset(change.section, text)
        inside = (*change.section, text)
        self._lines = {
            place: line
            for place, line in self._lines.items()
            if place != (change.section, text) and line.section[: len(inside)] != inside
        }

    def _said(self) -> "_Filters":
        if self._filters is None:
            texts = [line.text for line in self._lines.values()]
            sections: defaultdict[Section, list[str]] = defaultdict(list)
            for line in self._lines.values():
                sections[line.section].append(line.text)
            self._filters = _Filters(
                texts=frozenset(texts),
                entries=_entries(sections),
                peers=frozenset(ip_address(match.group(1)) for text in texts if (match := _PEER.match(text))),
                permitted=tuple(_permit(*match.groups()) for text in texts if (match := _PERMIT.search(text))),
            )
        return self._filters

    def _peers(self) -> frozenset[HostAddress]:
        return self._said().peers

    def _passes(self, prefix: Prefix, metric: int) -> bool:
        family = Family.of(prefix)
        if f"redistribute kernel route-map {kernel_map(family)}" not in self._said().texts:
            return False
        if (kernel_map(family), metric) not in self._said().entries:
            return False
        return any(entry.lets_through(prefix) for entry in self._said().permitted)

    def _route(self, prefix: Prefix, metric: int, peers: frozenset[HostAddress]) -> Route:
        family = Family.of(prefix)
        communities = (
            *self._set_by_map(family, metric, "set community"),
            *self._set_by_map(family, metric, "set large-community"),
        )
        return Route(tuple(_WELL_KNOWN.get(it, it) for it in communities), self._preference(family, metric), peers)

    def _preference(self, family: Family, metric: int) -> int:
        """A batch of lines that was cut short may have left none: then it is BGP's own."""
        found = self._set_by_map(family, metric, "set local-preference")
        return int(found[0]) if found else LOCAL_PREFERENCE

    def _set_by_map(self, family: Family, metric: int, what: str) -> tuple[str, ...]:
        return tuple(
            word
            for text in self._said().entries.get((kernel_map(family), metric), ())
            if text.startswith(f"{what} ")
            for word in text.removeprefix(f"{what} ").split()
        )


def _entries(sections: Mapping[Section, Sequence[str]]) -> Mapping[tuple[str, int], Sequence[str]]:
    """The first of a route-map that takes a metric is the one that counts."""
    entries: dict[tuple[str, int], Sequence[str]] = {}
    for section, texts in sections.items():
        for match in filter(None, map(_METRIC.match, texts)):
            entries.setdefault((section[0].split()[1], int(match.group(1))), texts)
    return entries


@lru_cache(maxsize=1000)
def _permit(text: str, at_least: str | None, at_most: str | None) -> _Permit:
    block = ip_network(text)
    longest = int(at_most or (block.max_prefixlen if at_least else block.prefixlen))
    return _Permit(block, int(at_least or block.prefixlen), longest)


def _inside(prefix: Prefix, block: Prefix) -> bool:
    return int(block.network_address) <= int(prefix.network_address) <= int(block.broadcast_address)


def _is_default(text: str) -> bool:
    return text.endswith(("send-community all", "restart-time 120"))
