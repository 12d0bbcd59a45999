"""FRR, once for each router, in its namespace: started, configured, stopped.

Each instance has a path space of its own, named as its namespace: configuration in /etc/frr/P, sockets and pid files
in /var/run/frr/P (https://docs.frrouting.org/en/stable-8.4/setup.html, option -N). A node's FRR starts empty; its
bgp-announcer configures it. Reflectors and core are configured here.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from vmfabric.lab import namespaces, processes
from vmfabric.lab.errors import LabError
from vmfabric.lab.programs import run
from vmfabric.lab.topology import Router, Topology

DAEMONS = ("zebra", "staticd", "bfdd", "bgpd")
"""In the order in which they start: bgpd connects to the others."""

_PROGRAMS = Path("/usr/lib/frr")
_CONFIGURATIONS = Path("/etc/frr")
_RUNNING = Path("/var/run/frr")
_SCRATCH = Path("/var/tmp/frr")  # noqa: S108  # FRR's own choice
_USER = "frr"

# zebra loses routes for good when its netlink buffer overflows: 10 000 added at once, 7 020 seen with the default.
_NETLINK_BUFFER = "90000000"

_OPTIONS: dict[str, tuple[str, ...]] = {"zebra": ("-s", _NETLINK_BUFFER)}

# Every default that differs between FRR versions or profiles is said.
_COMMON = """\
frr version 8.4
frr defaults traditional
hostname {name}
service integrated-vtysh-config
!
router bgp {asn}
 bgp router-id {router_id}
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp log-neighbor-changes
"""

# A reflector that restarts gracefully keeps the routes of a dead node: measured, not gone within 25 s.
_REFLECTOR = """\
 bgp graceful-restart-disable
 bgp cluster-id {cluster_id}
 bgp listen limit 5000
 neighbor clients peer-group
 neighbor clients remote-as {asn}
 neighbor clients timers 3 9
 neighbor clients bfd
 bgp listen range {listen} peer-group clients
 address-family ipv4 unicast
  neighbor clients activate
  neighbor clients route-reflector-client
  neighbor clients send-community both
 exit-address-family
 address-family ipv6 unicast
  neighbor clients activate
  neighbor clients route-reflector-client
  neighbor clients send-community both
 exit-address-family
exit
"""

_CORE = """\
 neighbor reflectors peer-group
 neighbor reflectors remote-as {asn}
 neighbor reflectors timers 3 9
 neighbor reflectors timers connect 1
 neighbor reflectors bfd
{neighbors}
 address-family ipv4 unicast
  neighbor reflectors activate
  neighbor reflectors send-community both
 exit-address-family
 address-family ipv6 unicast
  neighbor reflectors activate
  neighbor reflectors send-community both
 exit-address-family
exit
"""


def taken(topology: Topology) -> list[str]:
    """Directories of FRR instances with the names that the lab would use, that already exist."""
    return [
        str(directory)
        for router in topology.routers
        for directory in _directories(topology.namespace(router.name))
        if directory.exists()
    ]


def start(topology: Topology, router: Router, log: Path) -> None:
    """Make the router's path space and start its daemons, with what they say in `log`."""
    instance = topology.namespace(router.name)
    configuration, running = _directories(instance)
    for directory, mode in ((configuration, 0o750), (running, 0o755)):
        directory.mkdir(mode=mode, parents=True)
        shutil.chown(directory, _USER, _USER)
    _write(configuration / "vtysh.conf", "service integrated-vtysh-config\n")
    _write(configuration / "frr.conf", configuration_of(topology, router))
    _write(log, "")
    for daemon in DAEMONS:
        start_daemon(topology, router, daemon, log)
    load(topology, router)


def start_daemon(topology: Topology, router: Router, daemon: str, log: Path) -> None:
    """Start one daemon with an empty configuration."""
    instance = topology.namespace(router.name)
    run(
        *namespaces.inside(instance, str(_PROGRAMS / daemon), "-d", "-N", instance, "-A", "127.0.0.1"),
        *("--log", f"file:{log}", "--log-level", "informational", *_OPTIONS.get(daemon, ())),
    )


def load(topology: Topology, router: Router, *daemons: str) -> None:
    """Give the running daemons, or only these, what the router's frr.conf says.

    bgpd takes some lines only once: LabError when it is given them again.
    """
    for only in [["-d", daemon] for daemon in daemons] or [[]]:
        run("vtysh", "-N", topology.namespace(router.name), *only, "-b")


def vtysh(topology: Topology, router: Router, *commands: str) -> str:
    """What FRR answers to these commands."""
    arguments = [argument for command in commands for argument in ("-c", command)]
    return run("vtysh", "-N", topology.namespace(router.name), *arguments)


def sessions_down(topology: Topology, router: Router) -> list[str]:
    """Neighbours that are configured on the router and whose BGP session is not established."""
    summary = json.loads(vtysh(topology, router, "show bgp ipv4 unicast summary json"))
    return [peer for peer, state in summary.get("peers", {}).items() if state["state"] != "Established"]


def pid(topology: Topology, router: Router, daemon: str) -> int | None:
    """The process of a daemon, or None when it does not run."""
    namespace = topology.namespace(router.name)
    try:
        number = int((_RUNNING / namespace / f"{daemon}.pid").read_text())
    except FileNotFoundError:
        return None
    return number if number in namespaces.processes([namespace]) else None


def kill(topology: Topology, router: Router, daemon: str, number: signal.Signals = signal.SIGKILL) -> None:
    """End a daemon as a crash does, or by another signal, and wait until it is gone. LabError if it does not run."""
    process = pid(topology, router, daemon)
    if process is None:
        raise LabError(f"{daemon} does not run on {router.name}")
    os.kill(process, number)
    _wait(lambda: pid(topology, router, daemon) is None, f"{daemon} on {router.name} is there after {number.name}")
    _remove_scratch(process)


def remove(topology: Topology, ended: set[int]) -> None:
    """Remove the path spaces of all routers. Their daemons, which had these ids, have ended with their namespaces."""
    for process in ended:
        _remove_scratch(process)
    for router in topology.routers:
        configuration, running = _directories(topology.namespace(router.name))
        for pid_file in running.glob("*.pid"):  # of those that were killed before
            _remove_scratch(int(pid_file.read_text()))
        for directory in (configuration, running):
            if directory.exists():
                shutil.rmtree(directory)


def configuration_of(topology: Topology, router: Router) -> str:
    """The frr.conf that a router starts with."""
    if router in topology.nodes or topology.fabric is None:
        return f"frr version 8.4\nfrr defaults traditional\nhostname {router.name}\nservice integrated-vtysh-config\n"
    common = _COMMON.format(name=router.name, asn=topology.asn, router_id=router.ipv4)
    if router == topology.core:
        neighbors = "\n".join(f" neighbor {peer.ipv4} peer-group reflectors" for peer in topology.reflectors)
        return common + _CORE.format(asn=topology.asn, neighbors=neighbors)
    return common + _REFLECTOR.format(
        asn=topology.asn,
        # The same on all: they reflect the same clients, and need not hear of them from each other (RFC 4456, 7).
        cluster_id=topology.reflectors[0].ipv4,
        listen=topology.fabric.ipv4,
    )


def _directories(instance: str) -> tuple[Path, Path]:
    return _CONFIGURATIONS / instance, _RUNNING / instance


def _remove_scratch(process: int) -> None:
    # A daemon makes a directory at its start and removes it at its end, but not when it is killed. The directory has
    # the number of the process that went to the background; the log buffers in it have those of the daemon's threads.
    named = list(_SCRATCH.glob(f"*.{process}"))
    for directory in [*named, *(buffer.parent for buffer in _SCRATCH.glob(f"*/logbuf.{process}"))]:
        writers = [int(buffer.suffix[1:]) for buffer in directory.glob("logbuf.*")]
        if all(processes.started_at(writer) is None for writer in writers) and directory.exists():
            shutil.rmtree(directory)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o640)
    shutil.chown(path, _USER, _USER)


def _wait(condition: Callable[[], bool], complaint: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(complaint)
        time.sleep(0.02)
