"""Faults: links cut, processes killed, and everything put right again."""

import signal
from collections.abc import Collection

from vmfabric.lab import frr, processes, supervision
from vmfabric.lab.answers import wait_until_answers
from vmfabric.lab.cables import data_port, management_port
from vmfabric.lab.errors import LabError
from vmfabric.lab.lab import Lab
from vmfabric.lab.network import forget
from vmfabric.lab.programs import run
from vmfabric.lab.services import of_node
from vmfabric.lab.topology import CONTROL, SWITCH


def cut_management(lab: Lab, host: str) -> None:
    """Cut the host off from the management network; the fabric stays."""
    _set_port(lab, _management_port(lab, host), "down")


def restore_management(lab: Lab, host: str) -> None:
    """Connect the host to the management network again."""
    _set_port(lab, _management_port(lab, host), "up")


def cut_fabric(lab: Lab, host: str) -> None:
    """Cut a host off from its fabric, physical or provider's network; the management network stays."""
    _set_port(lab, data_port(host), "down")


def restore_fabric(lab: Lab, host: str) -> None:
    """Connect it again."""
    _set_port(lab, data_port(host), "up")


def kill_service(lab: Lab, service: str, host: str = CONTROL, number: signal.Signals = signal.SIGKILL) -> None:
    """End a service or a server (`nats`, `postgres`) as a crash does, or by another signal; it stays away."""
    supervision.stop(lab.state, lab.program(service, host), number)


def crash_service(lab: Lab, service: str, host: str = CONTROL) -> None:
    """The same, but the lab starts it again by itself. LabError when it does not run."""
    program = lab.program(service, host)
    process = processes.pid(lab.state, program)
    if process is None:
        raise LabError(f"{service} on {host} does not run")
    supervision.end(lab.state, program, process, signal.SIGKILL)


def start_service(lab: Lab, service: str, host: str = CONTROL, *, wait: bool = True) -> None:
    """Start a service or a server that was killed; returns when it answers or has said that it has started.

    Without waiting it is one that cannot do so yet, since what it needs is away.
    """
    program = lab.program(service, host)
    supervision.start(lab.state, program, lab.supervisor)
    if wait:
        wait_until_answers(lab, program)


def kill_frr(lab: Lab, host: str, *daemons: str) -> None:
    """End these daemons of a router's FRR as a crash does; all of them when none is named."""
    router = lab.router(host)
    for daemon in daemons or reversed(frr.DAEMONS):
        frr.kill(lab.topology, router, daemon)


def start_frr(lab: Lab, host: str) -> None:
    """Start those daemons of a router's FRR that do not run, and load its frr.conf. A node's is empty."""
    router = lab.router(host)
    for daemon in frr.DAEMONS:
        if frr.pid(lab.topology, router, daemon) is None:
            frr.start_daemon(lab.topology, router, daemon, lab.frr_log(router))
    frr.load(lab.topology, router)


def cut_power(lab: Lab, host: str) -> None:
    """A node is gone at once: its cables are dead, nothing runs, and its kernel has forgotten what was in it."""
    node = lab.topology.node(host)
    for port in (data_port(node.name), management_port(node.name)):
        _set_port(lab, port, "down")
    for service in of_node(lab.topology, node):
        program = lab.program(service, node.name)
        if supervision.is_ordered(lab.state, program):
            supervision.stop(lab.state, program, signal.SIGKILL)
    for router in (it for it in lab.topology.routers if it == node):
        for daemon in (it for it in frr.DAEMONS if frr.pid(lab.topology, router, it) is not None):
            frr.kill(lab.topology, router, daemon)
    forget(lab.topology, node)


def restore_power(lab: Lab, host: str, *, management: bool = True, services: Collection[str] | None = None) -> None:
    """The node boots: its cables, FRR and services (all of them, or these), which are not waited for. Without
    `management` it has no bus.
    """
    node = lab.topology.node(host)
    for port in (data_port(node.name), *([management_port(node.name)] if management else [])):
        _set_port(lab, port, "up")
    if node in lab.topology.routers:
        start_frr(lab, node.name)
    for service in of_node(lab.topology, node) if services is None else services:
        start_service(lab, service, node.name, wait=False)


def _management_port(lab: Lab, host: str) -> str:
    return management_port(CONTROL if host == CONTROL else lab.topology.node(host).name)


def _set_port(lab: Lab, port: str, state: str) -> None:
    run("ip", "-n", lab.topology.namespace(SWITCH), "link", "set", port, state)
