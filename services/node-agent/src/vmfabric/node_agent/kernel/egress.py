"""Loads what may leave a link through nft(8) and reads it back."""

import json
from collections import defaultdict
from typing import Any

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.antispoof import TABLE
from vmfabric.node_agent.domain.egress import CHAIN_PREFIX, COUNTER, EgressGuard
from vmfabric.node_agent.kernel import nftables

_OURS = f"netdev {TABLE}"


def load(guard: EgressGuard) -> None:
    """In one transaction, whatever was there. NftError when nft refuses, or shows something else."""
    hook = f'type filter hook egress device "{guard.interface}" priority 0; policy accept;'
    nftables.load(
        f"add table {_OURS}\n"
        f"add counter {_OURS} {COUNTER}\n"
        f"{_without(guard.interface)}"
        f"add chain {_OURS} {guard.chain} {{ {hook} }}\n"
        f'add rule {_OURS} {guard.chain} {guard.rule.text} comment "{guard.rule.comment}"\n'
    )
    if parse(nftables.listed()).get(guard.interface) != (guard.rule.comment,):
        raise nftables.NftError("loaded, but the kernel shows something else")


def remove(interface: InterfaceName) -> None:
    """Take the chain away. NftError when nft refuses."""
    nftables.load(_without(interface))


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """The marks of the rules of each chain, by interface, in what `nft -j list ruleset netdev` printed."""
    if CHAIN_PREFIX not in text:
        return {}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for entry in json.loads(text)["nftables"]:
        chain, rule = entry.get("chain"), entry.get("rule")
        if chain is not None and _is_guard(chain, chain["name"]) and _is_hooked(chain):
            found[chain["name"].removeprefix(CHAIN_PREFIX)] += []
        if rule is not None and _is_guard(rule, rule["chain"]):
            found[rule["chain"].removeprefix(CHAIN_PREFIX)].append(rule.get("comment", ""))
    return {interface: tuple(comments) for interface, comments in found.items()}


def _is_guard(body: Any, chain: str) -> bool:
    return bool(body["family"] == "netdev" and body["table"] == TABLE and chain.startswith(CHAIN_PREFIX))


def _is_hooked(chain: Any) -> bool:
    return bool(chain.get("hook") == "egress")


def _without(interface: InterfaceName) -> str:
    # Made first: to delete what is not there is an error.
    chain = f"{_OURS} {CHAIN_PREFIX}{interface}"
    return f"add chain {chain}\nflush chain {chain}\ndelete chain {chain}\n"
