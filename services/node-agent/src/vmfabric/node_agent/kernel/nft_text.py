"""Anti-spoofing as nftables text: the only place where it is written.

Every word comes from a constant or from a validated type (interface name, MAC, address objects), never from text.
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import assert_never

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.antispoof import (
    NOT_GUARDED,
    TABLE,
    Address,
    CounterName,
    Direction,
    Guard,
    GuardState,
    Rule,
    SetName,
    chain_name,
)
from vmfabric.node_agent.domain.guest_rules import SET_KEYS, SHARED_CHAINS
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


_HOOKS = {
    Direction.OUT: 'hook ingress device "{}" priority 0; policy drop;',
    Direction.IN: 'hook egress device "{}" priority 0; policy accept;',
}


def _port(guard: Guard, found: GuardState | None) -> Iterator[str]:
    yield from _surplus("add", guard.interface, guard.loaded(), found or NOT_GUARDED)
    for direction in Direction:
        rules = guard.rules(direction)
        chain = chain_name(direction, guard.interface)
        if rules:
            yield f"add chain {_OURS} {chain} {{ type filter {_HOOKS[direction].format(guard.interface)} }}"
        for rule in rules:
            yield _rule(chain, rule)


def _removed(interface: InterfaceName, found: GuardState | None, *, keep: Guard | None) -> Iterator[str]:
    if found is None:
        return
    for direction in Direction:
        if found.chain(direction) is not None:
            yield f"flush chain {_OURS} {chain_name(direction, interface)}"
            yield f"delete chain {_OURS} {chain_name(direction, interface)}"
    yield from _surplus("delete", interface, found, keep.loaded() if keep else NOT_GUARDED)


def _surplus(verb: str, interface: InterfaceName, more: GuardState, less: GuardState) -> Iterator[str]:
    """What the one has and the other has not."""
    surplus = more.elements - less.elements
    for name in SetName:
        words = sorted(f'"{interface}" . {_written(name, address)}' for of, address in surplus if of is name)
        if words:
            yield f"{verb} element {_OURS} {name} {{ {', '.join(words)} }}"


def _written(name: SetName, address: Address) -> str:
    """As nft wants it: numbers where the set is compared with bare octets."""
    if name is SetName.TARGETS and isinstance(address, IPv6Address):
        return f"{int(address):#034x}"
    if name is SetName.PREFIX_TARGETS and isinstance(address, IPv6Network):
        return f"{int(address[0]):#034x}-{int(address[-1]):#034x}"
    return f"0x{str(address).replace(':', '')}" if name is SetName.OCTETS else str(address)


def _rule(chain: str, rule: Rule) -> str:
    return f'add rule {_OURS} {chain} {rule.text} comment "{rule.comment}"'
