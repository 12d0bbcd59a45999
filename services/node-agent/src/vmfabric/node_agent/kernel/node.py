"""The kernel port on the real kernel: the namespace that this process is in."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar, assert_never

from prometheus_client import Counter
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from vmfabric.contract.names import VmName
from vmfabric.node_agent.domain import operations as do
from vmfabric.node_agent.domain.actual import Actual
from vmfabric.node_agent.domain.port import NODE_SYSCTLS
from vmfabric.node_agent.kernel import addresses, links, nftables, routes, sysctls
from vmfabric.node_agent.kernel.netlink import Netlink, open_netlink
from vmfabric.node_agent.ports import KernelUnreadableError

_READ_ATTEMPTS = 5

T = TypeVar("T")

writes = Counter("vmfabric_kernel_writes", "Operations on the kernel, by kind and result", ["operation", "result"])


class NodeKernel:
    """All calls run one after the other in one thread, which owns the netlink socket."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._netlink: Netlink | None = None

    async def __aenter__(self) -> Self:
        self._netlink = await self._run(open_netlink)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._netlink is not None:
            await self._run(self._netlink.close)
        self._thread.shutdown()

    async def read(self) -> Actual:
        """All that concerns us. KernelUnreadableError when a part of it cannot be read."""
        return await self._run(self._read)

    async def apply(self, operations: Sequence[do.Operation]) -> tuple[do.Failure, ...]:
        """Do them in this order. One that is refused stops its VM and no other."""
        return await self._run(lambda: self._apply(operations))

    def _run(self, call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _socket(self) -> Netlink:
        if self._netlink is None:
            raise RuntimeError("NodeKernel is used outside its `async with`")
        return self._netlink

    def _read(self) -> Actual:
        for _attempt in range(_READ_ATTEMPTS):
            try:
                return self._read_once()
            except NetlinkDumpInterrupted:
                # Something changed while the kernel was telling; it says so, and is asked again.
                continue
            except (NetlinkError, OSError, ValueError, nftables.NftError) as error:
                raise KernelUnreadableError(f"the kernel could not be read: {error}") from error
        raise KernelUnreadableError(f"the kernel changed during each of {_READ_ATTEMPTS} reads; read again later")

    def _read_once(self) -> Actual:
        netlink = self._socket()
        found = links.read(netlink, addresses.read(netlink))
        return Actual(
            links=found,
            routes=routes.read(netlink, found),
            sysctls=sysctls.read(NODE_SYSCTLS),
            ruleset=nftables.read(),
        )

    def _apply(self, operations: Sequence[do.Operation]) -> tuple[do.Failure, ...]:
        failures: list[do.Failure] = []
        stopped: set[VmName] = set()
        for batch in _batches(operations):
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
            return _load(guards)
        failures = []
        for operation in operations:
            try:
                self._one(operation)
            except (NetlinkError, OSError) as error:
                failures.append(do.Failure(operation, str(error)))
            else:
                _count(operation)
        return failures

    def _one(self, operation: do.Operation) -> None:  # noqa: C901, PLR0912  # one line for each kind of operation
        netlink = self._socket()
        match operation:
            case do.SetNodeSysctl(name=name, value=value):
                sysctls.write(name, value)
            case do.RemoveRoute(interface=interface, prefix=prefix, metric=metric):
                routes.remove(netlink, interface, prefix, metric)
            case do.SetDown(interface=interface):
                links.change(netlink, interface, state="down")
            case do.DeleteLink(index=index):
                links.delete(netlink, index)
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
            case do.SetUp(interface=interface):
                links.change(netlink, interface, state="up")
            case do.AddRoute(interface=interface, prefix=prefix):
                routes.add(netlink, interface, prefix)
            case do.LoadTable() | do.LoadGuard() | do.RemoveGuard():
                raise RuntimeError(f"{operation} belongs in a transaction with its like")
            case _:
                assert_never(operation)


def _batches(operations: Sequence[do.Operation]) -> Iterator[list[do.Operation]]:
    """Operations of nftables that stand together are one batch; every other stands alone."""
    batch: list[do.Operation] = []
    for operation in operations:
        if not isinstance(operation, (do.LoadTable, do.LoadGuard, do.RemoveGuard)):
            if batch:
                yield batch
                batch = []
            yield [operation]
        else:
            batch.append(operation)
    if batch:
        yield batch


def _load(operations: Sequence[do.GuardOperation]) -> list[do.Failure]:
    """One transaction; when it is refused, each by itself, so that one bad port does not hold up the others."""
    try:
        nftables.apply(operations)
    except nftables.NftError as error:
        if len(operations) == 1:
            return [do.Failure(operations[0], str(error))]
        return [failure for operation in operations for failure in _load([operation])]
    for operation in operations:
        _count(operation)
    return _not_read_back(operations)


def _not_read_back(operations: Sequence[do.GuardOperation]) -> list[do.Failure]:
    """What nft took, but does not show: a link must not come up on a promise."""
    loaded = [operation for operation in operations if isinstance(operation, do.LoadGuard)]
    if not loaded:
        return []
    try:
        ruleset = nftables.read()
    except nftables.NftError as error:
        return [do.Failure(operation, f"loaded, but not read back: {error}") for operation in loaded]
    return [
        do.Failure(operation, "loaded, but the kernel shows something else")
        for operation in loaded
        if not ruleset.complete
        or operation.interface not in ruleset.guards
        or not ruleset.guards[operation.interface].is_as(operation.guard)
    ]


def _count(operation: do.Operation) -> None:
    writes.labels(type(operation).__name__, "done").inc()
