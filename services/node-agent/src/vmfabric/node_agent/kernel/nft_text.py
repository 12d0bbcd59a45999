"""Anti-spoofing as nftables text: the only place where it is written.

Every word comes from a constant or from a validated type (interface name, MAC, address objects), never from text.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.antispoof import (
    NOT_GUARDED,
    PORT_RULE,
    SET_KEYS,
    SHARED_CHAINS,
    TABLE,
    ChainState,
    CounterName,
    Guard,
    GuardState,
    Rule,
    SetName,
    chain_name,
)
from vmfabric.node_agent.domain.operations import GuardOperation, LoadGuard, LoadTable, RemoveGuard

_OURS = f"netdev {TABLE}"


def render(operations: Sequence[GuardOperation]) -> str:
    """One transaction for `nft -f -`: all of it happens, or none."""
    return "".join(f"{line}\n" for operation in operations for line in _lines(operation))


def _lines(operation: GuardOperation) -> Iterator[str]:
    match operation:
        case LoadTable():
            yield from _table()
        case LoadGuard(guard=guard, found=found):
            yield from _removed(guard.interface, found, keep=guard)
            yield from _port(guard, found)
        case RemoveGuard(interface=interface, found=found):
            yield from _removed(interface, found, keep=None)
        case _:
            assert_never(operation)


def _table() -> Iterator[str]:
    yield f"add table {_OURS}"
    for name, key in SET_KEYS.items():
        yield f"add set {_OURS} {name} {{ {key.declared}; }}"
    for counter in CounterName:
        yield f"add counter {_OURS} {counter}"
    for chain in SHARED_CHAINS:
        yield f"add chain {_OURS} {chain}"
        yield f"flush chain {_OURS} {chain}"
    for chain, rules in SHARED_CHAINS.items():
        for rule in rules:
            yield _rule(chain, rule)


def _port(guard: Guard, found: GuardState | None) -> Iterator[str]:
    chain = chain_name(guard.interface)
    yield from _surplus("add", guard.interface, guard.loaded(), found or NOT_GUARDED)
    hook = f'type filter hook ingress device "{guard.interface}" priority 0; policy drop;'
    yield f"add chain {_OURS} {chain} {{ {hook} }}"
    yield _rule(chain, PORT_RULE)


def _removed(interface: InterfaceName, found: GuardState | None, *, keep: Guard | None) -> Iterator[str]:
    if found is None:
        return
    if found.chain is not ChainState.ABSENT:
        yield f"flush chain {_OURS} {chain_name(interface)}"
        yield f"delete chain {_OURS} {chain_name(interface)}"
    yield from _surplus("delete", interface, found, keep.loaded() if keep else NOT_GUARDED)


def _surplus(verb: str, interface: InterfaceName, more: GuardState, less: GuardState) -> Iterator[str]:
    """What the one has and the other has not."""
    yield from _elements(verb, SetName.MACS, interface, more.macs - less.macs)
    yield from _elements(verb, SetName.IPV4, interface, map(str, more.ipv4 - less.ipv4))
    yield from _elements(verb, SetName.IPV6, interface, map(str, more.ipv6 - less.ipv6))
    yield from _elements(verb, SetName.TARGETS, interface, (f"{int(it):#034x}" for it in more.targets - less.targets))


def _elements(verb: str, name: SetName, interface: InterfaceName, addresses: Iterable[str]) -> Iterator[str]:
    words = ", ".join(f'"{interface}" . {address}' for address in sorted(addresses))
    if words:
        yield f"{verb} element {_OURS} {name} {{ {words} }}"


def _rule(chain: str, rule: Rule) -> str:
    return f'add rule {_OURS} {chain} {rule.text} comment "{rule.comment}"'
