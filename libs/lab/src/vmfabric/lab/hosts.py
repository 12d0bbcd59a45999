"""What can be asked of a running lab's hosts."""

import json
from ipaddress import IPv4Address, IPv6Address, ip_network

from vmfabric.contract.addresses import Family, Prefix
from vmfabric.lab import frr, namespaces
from vmfabric.lab.errors import LabError
from vmfabric.lab.lab import Lab
from vmfabric.lab.programs import run


def run_on(lab: Lab, host: str, *command: str, stdin: str | None = None) -> str:
    """What a program prints on a host or in a guest. LabError when it fails."""
    return run(*namespaces.inside(lab.namespace(host), *command), stdin=stdin)


def bgp_routes(lab: Lab, host: str) -> dict[Prefix, str]:
    """The routes in a router's kernel that BGP has put there, with their next hops."""
    found: dict[Prefix, str] = {}
    for family in ("-4", "-6"):
        rows = json.loads(run("ip", "-n", lab.namespace(host), "-json", family, "route", "show", "proto", "bgp"))
        for row in rows:
            found[ip_network(row["dst"])] = row.get("gateway") or ", ".join(
                hop["gateway"] for hop in row.get("nexthops", ())
            )
    return found


def local_preferences(lab: Lab, host: str) -> dict[Prefix, int]:
    """Of the best path to everything that a router has heard by BGP."""
    found: dict[Prefix, int] = {}
    for family in Family:
        shown = json.loads(frr.vtysh(lab.topology, lab.router(host), f"show bgp {family} unicast json"))
        for prefix, paths in shown.get("routes", {}).items():
            found |= {ip_network(prefix): int(path["locPrf"]) for path in paths if path.get("bestpath")}
    return found


def updates_received(lab: Lab, host: str) -> dict[str, int]:
    """How many BGP UPDATEs (RFC 4271, 4.3) a router was sent by each neighbour, and in which of its sessions, which
    begin with one.
    """
    shown = json.loads(frr.vtysh(lab.topology, lab.router(host), "show bgp neighbors json"))
    return {
        f"{host} from {peer}, session {told['connectionsEstablished']}": int(told["messageStats"]["updatesRecv"])
        for peer, told in shown.items()
    }


def answers_ping(lab: Lab, host: str, address: IPv4Address | IPv6Address, *, seconds: float = 1) -> bool:
    """Whether a ping from the host to the address is answered within so many seconds."""
    try:
        run_on(lab, host, "ping", "-c", "1", "-W", str(seconds), "-n", str(address))
    except LabError:
        return False
    return True
