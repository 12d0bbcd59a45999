"""The kernel port on the real kernel: the namespace that this process is in."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from types import TracebackType
from typing import Self, TypeVar, assert_never

from prometheus_client import Counter
from pyroute2.netlink.exceptions import NetlinkError

from vmfabric.contract.names import InterfaceName, VmName
from vmfabric.node_agent.domain import bridge_operations as bridges
from vmfabric.node_agent.domain import held
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain.actual import Actual, HostRoute, Interest
from vmfabric.node_agent.domain.antispoof import Ruleset
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.kernel import (
    addresses,
    asking,
    link_guard,
    links,
    neighbours,
    nftables,
    own,
    routes,
    sysctls,
    vlans,
)
from vmfabric.node_agent.kernel.dump import Dump, DumpInterruptedError
from vmfabric.node_agent.kernel.netlink import Netlink, open_netlink
from vmfabric.node_agent.ports import KernelUnreadableError

_READ_ATTEMPTS = 5

T = TypeVar("T")

writes = Counter("vmfabric_kernel_writes", "Operations on the kernel, by kind and result", ["operation", "result"])


class NodeKernel:
    """All calls run one after the other in one thread, which owns the netlink socket."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._open: tuple[Netlink, Dump] | None = None

    async def __aenter__(self) -> Self:
        self._open = await self._run(lambda: (open_netlink(), Dump()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            netlink, dump = self._open
            await self._run(netlink.close)
            dump.close()
        self._thread.shutdown()

    async def read(self, interest: Interest) -> Actual:
        """All that concerns us. KernelUnreadableError when a part of it cannot be read."""
        return await self._run(lambda: self._read(interest))

    async def apply(self, operations: Sequence[do.Operation]) -> tuple[do.Failure, ...]:
        """Do them in this order. One that is refused stops its VM and no other."""
        return await self._run(lambda: self._apply(operations))

    async def ask(self, interface: InterfaceName, question: Question, seconds: float) -> bool:
        """Whether that neighbour answers on this link within this time. OSError when the link is not up."""
        with await self._run(lambda: asking.open_on(interface)) as asked:
            return await asking.ask(asked, question, seconds)

    def _run(self, call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _sockets(self) -> tuple[Netlink, Dump]:
        if self._open is None:
            raise RuntimeError("NodeKernel is used outside its `async with`")
        return self._open

    def _read(self, interest: Interest) -> Actual:
        for _attempt in range(_READ_ATTEMPTS):
            try:
                return self._read_once(interest)
            except DumpInterruptedError:
                # Something changed while the kernel was telling; it says so, and is asked again.
                continue
            except (OSError, KeyError, ValueError, struct.error, nftables.NftError) as error:
                raise KernelUnreadableError(f"the kernel could not be read: {error}") from error
        raise KernelUnreadableError(f"the kernel changed during each of {_READ_ATTEMPTS} reads; read again later")

    def _read_once(self, interest: Interest) -> Actual:
        _netlink, dump = self._sockets()
        # What has lost its routes has lost its address or its link before: in this order that is seen too.
        over = own.read_routes(dump, interest.held_by)
        given = addresses.read(dump)
        found = links.read(dump, {index: frozenset(it.address for it in its) for index, its in given.items()})
        listed = nftables.listed()
        return Actual(
            links=found,
            routes=routes.read(dump, found),
            sysctls=sysctls.read(interest.sysctls),
            ruleset=nftables.parse(listed),
            proxies=neighbours.read(dump, found),
            held={
                name: own.held_by(link.index, over, given.get(link.index, ()))
                for name, link in found.items()
                if name in interest.held_by
            },
            link_guards=link_guard.parse(listed),
        )

    def _apply(self, operations: Sequence[do.Operation]) -> tuple[do.Failure, ...]:
        failures: list[do.Failure] = []
        stopped: set[VmName] = set()
        for batch in _batches(operations):
            if any(isinstance(failure.operation, do.LoadTable) for failure in failures):
                # A port's own rules lead to the shared ones: without those no link comes up.
                stopped |= {it.vm for it in batch if isinstance(it, do.SetUp) and it.vm is not None}
            todo = [operation for operation in batch if operation.vm is None or operation.vm not in stopped]
            for failure in self._batch(todo):
                writes.labels(type(failure.operation).__name__, "refused").inc()
                failures.append(failure)
                if failure.operation.vm is not None:
                    stopped.add(failure.operation.vm)
        return tuple(failures)

    def _batch(self, operations: Sequence[do.Operation]) -> list[do.Failure]:
        guards = [it for it in operations if isinstance(it, (do.LoadTable, do.LoadGuard, do.RemoveGuard))]
        if guards:
            refused = _load(guards)
            bad = {failure.operation for failure in refused}
            return [*refused, *_not_read_back([it for it in guards if it not in bad])]
        deletions = [it for it in operations if isinstance(it, do.DeleteLink)]
        if len(deletions) > 1 and self._deleted(deletions):
            return []
        failures = []
        for operation in operations:
            try:
                self._one(operation)
            except (NetlinkError, OSError, nftables.NftError) as error:
                failures.append(do.Failure(operation, str(error)))
            else:
                _count(operation)
        return failures

    def _deleted(self, operations: Sequence[do.DeleteLink]) -> bool:
        """All at once; False when that was refused and each has to be tried by itself."""
        netlink, dump = self._sockets()
        try:
            links.delete(dump, netlink, [operation.index for operation in operations])
        except (NetlinkError, OSError, DumpInterruptedError):
            return False
        for operation in operations:
            _count(operation)
        return True

    def _one(self, operation: do.Operation) -> None:  # noqa: C901, PLR0912  # one line for each kind of operation
        netlink, dump = self._sockets()
        match operation:
            case do.SetNodeSysctl(name=name, value=value):
                sysctls.write(name, value)
            case do.RemoveRoute(interface=interface, prefix=prefix, metric=metric):
                routes.remove(netlink, interface, prefix, metric)
            case do.SetDown(index=index):
                links.set_down(netlink, index)
            case do.RenameLink(interface=interface, index=index):
                links.rename(netlink, index, interface)
            case do.DeleteLink(index=index):
                links.delete(dump, netlink, [index])
            case do.CreateLink():
                links.create(netlink, operation)
            case do.SetAlias(interface=interface, alias=alias):
                links.change(netlink, interface, ifalias=alias)
            case do.AddAlternativeName(interface=interface, name=name):
                links.add_alternative_name(netlink, interface, name)
            case do.SetMac(interface=interface, mac=mac):
                links.change(netlink, interface, address=mac)
            case do.SetMtu(interface=interface, mtu=mtu):
                links.change(netlink, interface, mtu=mtu)
            case do.SetSysctl(interface=interface, name=name, value=value):
                sysctls.write_port(interface, name, value)
            case do.RemoveAddress(interface=interface, address=address):
                addresses.remove(netlink, interface, address)
            case do.AddAddress(interface=interface, address=address):
                addresses.add(netlink, interface, address)
            case bridges.CreateBridge() | bridges.SetBridge() | bridges.SetMaster() | bridges.SetIsolated():
                own.change_bridge(netlink, operation)
            case bridges.LoadLinkGuard() | bridges.RemoveLinkGuard() | bridges.AddProxy() | bridges.RemoveProxy():
                own.change_uplink(netlink, operation)
            case bridges.SetVlanFiltering() | bridges.JoinVlan() | bridges.LeaveVlans():
                vlans.change(netlink, operation)
            case held.PutAddress() | held.TakeAddress() | held.PutRoute() | held.TakeRoute():
                own.move(netlink, operation)
            case do.SetUp(interface=interface):
                links.change(netlink, interface, state="up")
            case do.AddRoute(interface=interface, prefix=prefix, metric=metric, gateway=gateway):
                routes.add(netlink, HostRoute(prefix, interface, metric, gateway))
            case do.LoadTable() | do.LoadGuard() | do.RemoveGuard():
                raise RuntimeError(f"{operation} belongs in a transaction with its like")
            case _:
                assert_never(operation)


def _batches(operations: Sequence[do.Operation]) -> Iterator[list[do.Operation]]:
    """What the kernel can do in one go stands together: nftables, and deletions. Every other stands alone."""
    for together, group in groupby(operations, _together):
        if together is None:
            yield from ([operation] for operation in group)
        else:
            yield list(group)


def _together(operation: do.Operation) -> str | None:
    match operation:
        case do.LoadTable() | do.LoadGuard() | do.RemoveGuard():
            return "nftables"
        case do.DeleteLink():
            return "deletions"
        case _:
            return None


def _load(operations: Sequence[do.GuardOperation]) -> list[do.Failure]:
    """One transaction; when it is refused, two, and so on, until those that are bad stand alone."""
    try:
        nftables.apply(operations)
    except nftables.NftNotRunError as error:
        return [do.Failure(operation, str(error)) for operation in operations]
    except nftables.NftError as error:
        if len(operations) == 1:
            return [do.Failure(operations[0], str(error))]
        half = len(operations) // 2
        return [*_load(operations[:half]), *_load(operations[half:])]
    for operation in operations:
        _count(operation)
    return []


def _not_read_back(operations: Sequence[do.GuardOperation]) -> list[do.Failure]:
    """What nft took, but does not show: a link must not come up on a promise."""
    loaded = [operation for operation in operations if not isinstance(operation, do.RemoveGuard)]
    if not loaded:
        return []
    try:
        ruleset = nftables.read()
    except nftables.NftError as error:
        return [do.Failure(operation, f"loaded, but not read back: {error}") for operation in loaded]
    return [
        do.Failure(operation, "loaded, but the kernel shows something else")
        for operation in loaded
        if not _is_shown(operation, ruleset)
    ]


def _is_shown(operation: do.LoadTable | do.LoadGuard, ruleset: Ruleset) -> bool:
    if isinstance(operation, do.LoadTable):
        return ruleset.complete
    found = ruleset.guards.get(operation.interface)
    return ruleset.complete and found is not None and found.is_as(operation.guard)


def _count(operation: do.Operation) -> None:
    writes.labels(type(operation).__name__, "done").inc()
