"""Loads anti-spoofing through nft(8) and reads it back."""

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from vmfabric.node_agent.domain.antispoof import (
    PORT_RULE,
    SET_KEYS,
    SHARED_CHAINS,
    TABLE,
    ChainState,
    CounterName,
    GuardState,
    Ruleset,
    SetName,
    chain_name,
    interface_of_chain,
)
from vmfabric.node_agent.domain.operations import GuardOperation
from vmfabric.node_agent.kernel.nft_text import render

_SECONDS = 20.0

_HOOK = {"type": "filter", "hook": "ingress", "prio": 0, "policy": "drop"}


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
    elements = {name: _elements(sets.get(name)) for name in SET_KEYS}
    bound = {interface for interface in map(interface_of_chain, chains) if interface is not None}
    interfaces = bound.union(*elements.values())
    return Ruleset(
        complete=complete,
        guards={
            interface: GuardState(
                chain=_chain_state(interface, chains.get(chain_name(interface)), rules[chain_name(interface)]),
                macs=frozenset(elements[SetName.MACS].get(interface, ())),
                ipv4=frozenset(IPv4Address(text) for text in elements[SetName.IPV4].get(interface, ())),
                ipv6=frozenset(IPv6Address(text) for text in elements[SetName.IPV6].get(interface, ())),
                targets=frozenset(_target(number) for number in elements[SetName.TARGETS].get(interface, ())),
            )
            for interface in interfaces
        },
    )


def _chain_state(interface: str, chain: Any, comments: Sequence[str | None]) -> ChainState:
    if chain is None:
        return ChainState.ABSENT
    hooked = all(chain.get(key) == value for key, value in _HOOK.items())
    # nft 1.0.6 does not print the device; the name of the chain stands for it.
    right = hooked and chain.get("dev", interface) == interface and list(comments) == [PORT_RULE.comment]
    return ChainState.RIGHT if right else ChainState.WRONG


def _target(number: str | int) -> IPv6Address:
    # nft prints a number that is too long for JSON as text.
    return IPv6Address(int(number, 16) if isinstance(number, str) else number)


def _elements(body: Any) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for interface, address in _pairs(body.get("elem", ()) if body else ()):
        found[interface].add(address)
    return dict(found)


def _pairs(elements: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for element in elements:
        interface, address = (element["elem"]["val"] if "elem" in element else element)["concat"]
        yield interface, address
