"""Loads what may pass a link through nft(8) and reads it back."""

import json
from collections import defaultdict
from typing import Any

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.antispoof import TABLE
from vmfabric.node_agent.domain.link_guard import COUNTER, Hook, LinkGuard
from vmfabric.node_agent.kernel import nftables

_OURS = f"netdev {TABLE}"


def load(guard: LinkGuard) -> None:
    """In one transaction, whatever was there. NftError when nft refuses, or shows something else."""
    interface = guard.interface
    lines = [f"add table {_OURS}", f"add counter {_OURS} {COUNTER}", *_without(interface)]
    for hook, rule in guard.rules.items():
        chain = f"{_OURS} {hook.chain(interface)}"
        lines += [
            f'add chain {chain} {{ type filter hook {hook} device "{interface}" priority 0; policy accept; }}',
            f'add rule {chain} {rule.text} comment "{rule.comment}"',
        ]
    nftables.load("".join(f"{line}\n" for line in lines))
    if parse(nftables.listed()).get(interface) != guard.marks:
        raise nftables.NftError("loaded, but the kernel shows something else")


def remove(interface: InterfaceName) -> None:
    """Take the chains away. NftError when nft refuses."""
    nftables.load("".join(f"{line}\n" for line in _without(interface)))


def parse(text: str) -> dict[str, frozenset[tuple[Hook, str]]]:
    """The marks of the rules of each link, by interface, in what `nft -j list ruleset netdev` printed."""
    if not any(f'"{hook.chain("")}' in text for hook in Hook):
        return {}
    found: defaultdict[str, set[tuple[Hook, str]]] = defaultdict(set)
    for entry in json.loads(text)["nftables"]:
        for hook in Hook:
            chain, rule = entry.get("chain"), entry.get("rule")
            if chain is not None and _is_guard(chain, chain["name"], hook) and chain.get("hook") == hook:
                found[chain["name"].removeprefix(hook.chain(""))] |= set()
            if rule is not None and _is_guard(rule, rule["chain"], hook):
                found[rule["chain"].removeprefix(hook.chain(""))].add((hook, rule.get("comment", "")))
    return {interface: frozenset(marks) for interface, marks in found.items()}


def _is_guard(body: Any, chain: str, hook: Hook) -> bool:
    return bool(body["family"] == "netdev" and body["table"] == TABLE and chain.startswith(hook.chain("")))


def _without(interface: InterfaceName) -> list[str]:
    # Made first: to delete what is not there is an error.
    chains = [f"{_OURS} {hook.chain(interface)}" for hook in Hook]
    return [f"{verb} chain {chain}" for chain in chains for verb in ("add", "flush", "delete")]
