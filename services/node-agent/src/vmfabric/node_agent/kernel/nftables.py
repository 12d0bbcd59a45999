"""Loads anti-spoofing through nft(8) and reads it back."""

import json
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, summarize_address_range
from typing import Any, assert_never

from vmfabric.node_agent.domain.antispoof import (
    TABLE,
    Address,
    Chain,
    CounterName,
    Direction,
    Element,
    GuardState,
    Ruleset,
    SetName,
    chain_name,
    interface_of_chain,
)
from vmfabric.node_agent.domain.guest_rules import SET_KEYS, SHARED_CHAINS
from vmfabric.node_agent.domain.operations import GuardOperation
from vmfabric.node_agent.kernel.nft_text import render

_SECONDS = 20.0

_HOOKS = {
    Direction.OUT: {"type": "filter", "hook": "ingress", "prio": 0, "policy": "drop"},
    Direction.IN: {"type": "filter", "hook": "egress", "prio": 0, "policy": "accept"},
}


class NftError(Exception):
    """nft did not do it; the text has what it said."""


class NftNotRunError(NftError):
    """nft could not be run, or did not end: trying anything else with it would not help."""


def apply(operations: Sequence[GuardOperation]) -> None:
    """All of it or nothing. NftError when nft refuses."""
    load(render(operations))


def load(text: str) -> None:
    """One transaction. NftError when nft refuses."""
    _nft("-f", "-", text=text)


def read() -> Ruleset:
    """Our table. NftError when it cannot be read; a table that is not there is an answer."""
    return parse(listed())


def listed() -> str:
    """What nft prints of the whole family: to ask for a table that is missing is an error that looks like any other.
    NftError when it cannot be read.
    """
    return _nft("-j", "list", "ruleset", "netdev")


def parse(text: str) -> Ruleset:
    """The ruleset in what `nft -j list ruleset netdev` printed. NftError when it is something else."""
    try:
        found = [(kind, body) for entry in json.loads(text)["nftables"] for kind, body in entry.items()]
        return _ruleset([(kind, body) for kind, body in found if _is_ours(kind, body)])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NftError(f"nft -j list ruleset printed something unexpected ({error!r}): {text[:200]}") from error


def _nft(*arguments: str, text: str | None = None) -> str:
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NftNotRunError(f"nft {' '.join(arguments)}: {error}; is the package nftables installed?") from error
    if done.returncode != 0:
        raise NftError(f"nft {' '.join(arguments)}: {done.stderr.strip()[:500]}")
    return done.stdout


def _is_ours(kind: str, body: Any) -> bool:
    if kind == "metainfo":
        return False
    return bool(body["family"] == "netdev" and (body["name"] if kind == "table" else body["table"]) == TABLE)


def _ruleset(entries: Sequence[tuple[str, Any]]) -> Ruleset:
    chains = {body["name"]: body for kind, body in entries if kind == "chain"}
    sets = {body["name"]: body for kind, body in entries if kind == "set"}
    counters = {body["name"] for kind, body in entries if kind == "counter"}
    rules: defaultdict[str, list[str | None]] = defaultdict(list)
    for kind, body in entries:
        if kind == "rule":
            rules[body["chain"]].append(body.get("comment"))
    complete = (
        all(name in sets and sets[name]["type"] == list(key.read) for name, key in SET_KEYS.items())
        and counters >= set(CounterName)
        and all(
            name in chains and rules[name] == [rule.comment for rule in wanted]
            for name, wanted in SHARED_CHAINS.items()
        )
    )
    elements = _elements(sets)
    bound = {interface for interface in map(interface_of_chain, chains) if interface is not None}
    return Ruleset(
        complete=complete,
        guards={
            interface: GuardState(
                from_guest=_chain(Direction.OUT, interface, chains, rules),
                to_guest=_chain(Direction.IN, interface, chains, rules),
                elements=frozenset(elements.get(interface, ())),
            )
            for interface in bound | elements.keys()
        },
    )


def _chain(
    direction: Direction, interface: str, chains: Mapping[str, Any], rules: Mapping[str, Sequence[str | None]]
) -> Chain | None:
    name = chain_name(direction, interface)
    found = chains.get(name)
    if found is None:
        return None
    hooked = all(found.get(key) == value for key, value in _HOOKS[direction].items())
    # nft 1.0.6 does not print the device; the name of the chain stands for it.
    return Chain(hooked and found.get("dev", interface) == interface, tuple(rules.get(name, ())))


def _elements(sets: Mapping[str, Any]) -> Mapping[str, set[Element]]:
    found: defaultdict[str, set[Element]] = defaultdict(set)
    for name in SET_KEYS:
        for element in sets.get(name, {}).get("elem", ()):
            interface, address = (element["elem"]["val"] if "elem" in element else element)["concat"]
            found[interface].add((name, _address(name, address)))
    return found


def _address(name: SetName, shown: Any) -> Address:
    match name:
        case SetName.MACS:
            return str(shown)
        case SetName.OCTETS:
            return _number(shown).to_bytes(6, "big").hex(":")
        case SetName.IPV4:
            return IPv4Address(shown)
        case SetName.IPV6 | SetName.LINK_LOCAL:
            return IPv6Address(shown)
        case SetName.PREFIXES:
            return _prefix(shown)
        case SetName.TARGETS:
            return IPv6Address(_number(shown))
        case SetName.PREFIX_TARGETS:
            first, last = (IPv6Address(_number(end)) for end in shown["range"])
            (prefix,) = summarize_address_range(first, last)
            return prefix
        case _:
            assert_never(name)


def _prefix(shown: object) -> IPv6Network:
    match shown:
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return IPv6Network((address, length))
        case _:
            return IPv6Network(str(shown))


def _number(shown: str | int) -> int:
    # nft prints a number that is too long for JSON as text.
    return int(shown, 16) if isinstance(shown, str) else shown
