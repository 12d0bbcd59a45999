"""What platform services ask for: sensible things, the same thing twice, and things that cannot be."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import Any

from vmfabric.contract.names import ClusterName, VmName

MAIN_POOL = "main"
TINY_POOL = "tiny"
DRY_RUN = "dry run"
LABELS = {"disk": "nvme"}
"""Of some nodes."""
CHOSEN_ADDRESS = ip_address("198.51.100.7")

_SECONDS = 32.0
_OF_UNKNOWN = (
    "create",
    "create",
    "create",
    "create",
    "create",
    "create",
    "delete",
    "delete",
    "invalid",
    "migrate",
    DRY_RUN,
)
_OF_KNOWN = (
    *("create", "repeat", "repeat", "conflict", "delete", "delete", "delete", "delete at once"),
    *("migrate", "migrate", "migrate", "migrate", DRY_RUN),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and when it is made."""

    at: float
    kind: str
    vm: VmName
    subject: str
    body: bytes


def workload(random: Random, cluster: ClusterName, nodes: int) -> list[Asked]:
    """A life of a few VMs whose names are used again and again."""
    names = [f"vm{number}" for number in range(1, random.randint(4, 8) + 1)]
    times = sorted(random.uniform(0.0, _SECONDS) for _ in range(random.randint(8, 20)))
    return list(_requests(random, cluster, nodes, names, times))


def _requests(
    random: Random, cluster: ClusterName, nodes: int, names: list[VmName], times: list[float]
) -> Iterator[Asked]:
    last: dict[VmName, dict[str, Any]] = {}  # what was asked for those that nobody has asked to remove
    for at in times:
        vm = random.choice(names)
        kind = random.choice(_OF_KNOWN if vm in last else _OF_UNKNOWN)
        name = {"cluster": cluster, "vm": vm}
        if kind == "migrate":
            target = {"node": f"n{random.randint(1, nodes)}"} if random.random() < 0.5 else {}
            yield _asked(random, at, kind, name | target, "vm.migrate.requested")
            continue
        body = _body(random, kind, name | _wishes(random, nodes), last.get(vm))
        if kind == "create":
            last[vm] = body
        if kind != "delete":
            yield _asked(random, at, kind, body, "vm.requested")
        if kind in {"delete", "delete at once"}:
            last.pop(vm, None)
            after = at + random.uniform(0.0, 0.05) if kind == "delete at once" else at
            yield _asked(random, after, "delete", name, "vm.delete.requested")


def _body(random: Random, kind: str, new: dict[str, Any], last: dict[str, Any] | None) -> dict[str, Any]:
    match kind:
        case "repeat" if last is not None:
            return last
        case "conflict" if last is not None:
            return {**last, "cpu": last["cpu"] + 1}
        case "invalid":
            return {**new, random.choice(("cpu", "memory_mb", "disk_gb")): 0}
        case "dry run":
            return {**new, "dry_run": True}
        case _:
            return new


def _asked(random: Random, at: float, kind: str, body: dict[str, Any], stem: str) -> Asked:
    subject = random.choice([stem, f"{stem}.{body['cluster']}.{body['vm']}"])
    return Asked(at, kind, body["vm"], subject, json.dumps(body).encode())


def _wishes(random: Random, nodes: int) -> dict[str, Any]:
    wishes: dict[str, Any] = {"cpu": random.randint(1, 4), "memory_mb": 64, "disk_gb": 1}
    roll = random.random()
    if roll < 0.3:
        wishes["addresses"] = [{"family": "ipv4", "pool": TINY_POOL}]
    elif roll < 0.4:
        wishes["addresses"] = [{"family": "ipv4", "address": str(CHOSEN_ADDRESS)}]
    elif roll < 0.45:
        wishes["memory_mb"] = 1_000_000
    elif roll < 0.6:
        wishes["node"] = f"n{random.randint(1, nodes)}"
    return wishes | _rules(random)


def _rules(random: Random) -> dict[str, Any]:
    """The VMs of a life have few groups, so that they meet."""
    rules: dict[str, Any] = {}
    if random.random() < 0.3:
        group, kind = random.choice((("apart", "anti-affinity"), ("together", "affinity")))
        rules["groups"] = [{"group": group, "kind": kind, "hard": random.random() < 0.7}]
    if random.random() < 0.1:
        rules["labels"] = LABELS
    return rules
