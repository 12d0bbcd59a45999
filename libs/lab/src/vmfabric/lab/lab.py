"""The lab as a whole: brought up, looked at, taken down."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import nats.errors

from vmfabric.contract.errors import VmfabricError
from vmfabric.lab import control_plane, frr, guests, namespaces, network, processes, services, supervision
from vmfabric.lab.errors import LabError, LabIsUpError
from vmfabric.lab.processes import Program
from vmfabric.lab.state import Record, State
from vmfabric.lab.topology import Router, Topology
from vmfabric.runtime import micro
from vmfabric.runtime.bus import open_client

Step = Callable[[str], AbstractContextManager[None]]
"""Told what is being done, for as long as it is done."""

_CONNECT_SECONDS = 3.0
_SERVER_SECONDS = 20.0
_SERVICE_SECONDS = 40.0
_SESSION_SECONDS = 20.0
_POLL_SECONDS = 0.05


@contextmanager
def silently(_what: str) -> Iterator[None]:
    """A step that nobody watches."""
    yield


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that exists."""

    state: State
    topology: Topology

    @staticmethod
    def find(state: State | None = None) -> "Lab":
        """The lab in this directory, which may be half made. LabError when there is none."""
        where = state or State.of_environment()
        record = where.record()
        if record is None:
            raise LabError(f"there is no lab in {where.directory}; `./vmfabric lab up` makes one")
        return Lab(where, record.topology)

    @property
    def nats_url(self) -> str:
        """Where this machine finds the bus."""
        return control_plane.operators_url(self.topology)

    @property
    def supervisor(self) -> Program:
        """What starts all other programs."""
        return control_plane.supervisor(self.state, self.topology)

    def servers(self) -> tuple[Program, ...]:
        """Programs that the services need."""
        return (
            control_plane.nats(self.state, self.topology),
            control_plane.postgres(self.state, self.topology),
            control_plane.door(self.topology),
        )

    def services(self) -> tuple[Program, ...]:
        """Programs of vmfabric."""
        return services.programs(self.state, self.topology)

    def program(self, service: str, host: str) -> Program:
        """The program of a service on a host. LabError when it has no such service."""
        for program in (*self.servers(), *self.services()):
            if (program.service, program.host) == (service, host):
                return program
        raise LabError(f"no service {service!r} belongs on host {host!r}")

    def router(self, host: str) -> Router:
        """A host that runs FRR. LabError when there is none of this name."""
        for router in self.topology.routers:
            if router.name == host:
                return router
        raise LabError(f"there is no router {host!r}; the lab has {', '.join(r.name for r in self.topology.routers)}")

    def frr_log(self, router: Router) -> Path:
        """What the router's FRR says."""
        return self.state.logs / f"{router.name}-frr.log"

    def namespace(self, host: str) -> str:
        """The namespace of a host, or of a guest by its VM's name. LabError when there is none."""
        if host in self.topology.hosts:
            return self.topology.namespace(host)
        found = [guest for guest in guests.recorded(self.state, self.topology) if host in {guest.vm, guest.name}]
        if len(found) == 1:
            return found[0].namespace
        if found:
            raise LabError(f"{host!r} is a guest of {' and of '.join(guest.name for guest in found)}; say which")
        raise LabError(f"there is no host and no guest {host!r}; hosts are {', '.join(self.topology.hosts)}")


def up(topology: Topology, state: State, step: Step = silently, *, with_services: bool = True) -> Lab:
    """Make the lab; returns when everything in it answers. What a killed run has left is removed first.

    Without services it is the data centre alone: network, routers, bus and database. LabError when something of it
    does not come up, with the end of its log; what was made is then still there to be looked at.
    """
    with state.locked():
        if (record := state.record()) is not None:
            if record.ready and namespaces.processes(record.topology.namespaces()):
                raise LabIsUpError(f"the lab in {state.directory} is up already; `./vmfabric lab down` takes it down")
            with step("removing what an earlier run has left"):
                _remove(state, record.topology)
                state.directory.mkdir(mode=0o755)
        else:
            state.refuse_foreign()
        _refuse_taken_names(topology)
        lab = Lab(state, topology)
        with control_plane.listen(topology) as listener:
            state.write(Record(topology=topology))
            with step("network: switch, cables, addresses"):
                network.build(topology)
            supervision.begin(state, lab.supervisor, listener.fileno())
            with step("control plane: nats-server, Postgres"):
                _start_servers(lab)
        with step(f"routers: FRR on {', '.join(router.name for router in topology.routers)}"):
            _start_routers(lab)
        if with_services:
            with step("services: scheduler, ipam, node-agent, bgp-announcer, hypervisor"):
                _start_services(lab)
        with step("sessions: core and reflectors"):
            _wait_for_sessions(lab)
        state.write(Record(topology=topology, ready=True))
    return lab


def down(state: State) -> bool:
    """Remove all of the lab, whatever state it is in. False when there was none."""
    if not state.directory.exists():
        return False
    with state.locked():
        record = state.record()
        if record is None:
            state.remove_if_empty()  # a command that was killed before it wrote the record had made nothing else
            return False
        _remove(state, record.topology)
    return True


def _remove(state: State, topology: Topology) -> None:
    ended = namespaces.remove(topology.namespaces())  # its hypervisors end here, so no guest is made any more
    namespaces.remove(guest.namespace for guest in guests.recorded(state, topology))
    frr.remove(topology, ended)
    control_plane.remove_shared_memory(state)
    state.remove()


def _refuse_taken_names(topology: Topology) -> None:
    taken = [name for name in topology.namespaces() if namespaces.exists(name)]
    taken += frr.taken(topology)
    if taken:
        raise LabError(
            f"the lab would make {', '.join(taken)}, which somebody else has made already: remove them, or give the "
            "lab another `name` in its topology file"
        )


def _start_servers(lab: Lab) -> None:
    nats, postgres, _ = lab.servers()
    control_plane.prepare(lab.state)
    for server in lab.servers():
        start(lab, server)
    wait_until_answers(lab, postgres)
    control_plane.create_database(lab.state)
    wait_until_answers(lab, nats)


def _start_routers(lab: Lab) -> None:
    with ThreadPoolExecutor(len(lab.topology.routers)) as pool:
        for done in [
            pool.submit(frr.start, lab.topology, router, lab.frr_log(router)) for router in lab.topology.routers
        ]:
            done.result()


def _wait_for_sessions(lab: Lab) -> None:
    deadline = time.monotonic() + _SESSION_SECONDS
    core = lab.topology.core
    while missing := frr.sessions_down(lab.topology, core):
        if time.monotonic() > deadline:
            raise LabError(
                f"{core.name} has no BGP session with {', '.join(missing)}; its log is {lab.frr_log(core)}"
            )
        time.sleep(_POLL_SECONDS)


def _start_services(lab: Lab) -> None:
    for program in lab.services():
        lab.state.of_service(program.host, program.service).mkdir(parents=True)
        start(lab, program)
    for program in lab.services():
        wait_until_answers(lab, program)


def start(lab: Lab, program: Program) -> None:
    """Have the program run from now on; it may need a moment until it does its work. LabError if it runs already."""
    supervision.start(lab.state, program, lab.supervisor)


def start_supervisor(lab: Lab) -> None:
    """Start the supervisor of a lab whose last one has ended; all that runs goes on. LabError when it runs."""
    if processes.pid(lab.state, lab.supervisor) is not None:
        raise LabError("the lab's supervisor runs already")
    door = control_plane.door(lab.topology)
    if (process := processes.pid(lab.state, door)) is not None:  # its socket is the one that the last supervisor had
        supervision.end(lab.state, door, process, door.ends_by)
    with control_plane.listen(lab.topology) as listener:
        supervision.begin(lab.state, lab.supervisor, listener.fileno())


def wait_until_answers(lab: Lab, program: Program) -> None:
    """Wait until a program that was started does its work.

    Servers take connections; scheduler and ipam answer a request; the node's services have said in their logs that
    they have reached the bus and started. LabError with the end of its log when it has ended, or takes too long.
    """
    match program.service:
        case "postgres":
            _until(lab, program, lambda: control_plane.postgres_answers(lab.state), _SERVER_SECONDS)
        case "nats" | "door":
            _until(lab, program, lambda: asyncio.run(_bus_answers(lab)), _SERVER_SECONDS)
        case "scheduler":
            _until(lab, program, lambda: asyncio.run(_is_served(lab, "cluster.list")), _SERVICE_SECONDS)
        case "ipam":
            _until(lab, program, lambda: asyncio.run(_is_served(lab, "network.list")), _SERVICE_SECONDS)
        case _:
            _until(lab, program, lambda: _has_started(lab.state, program), _SERVICE_SECONDS)


def _has_started(state: State, program: Program) -> bool:
    # Every service runs in vmfabric.runtime.service, which logs these two.
    lines = [line for line in processes.output(state, program).splitlines() if line.startswith("{")]
    return {"bus.connected", "service.started"} <= {json.loads(line).get("event") for line in lines}


async def _bus_answers(lab: Lab) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS), await open_client(lab.nats_url) as client:
            await client.jetstream(timeout=1).account_info()
    except (OSError, TimeoutError, nats.errors.Error):
        return False
    return True


async def _is_served(lab: Lab, subject: str) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS), await open_client(lab.nats_url) as client:
            await micro.request(client, subject, b"{}", seconds=1)
    except (OSError, TimeoutError, nats.errors.Error, VmfabricError):
        return False
    return True


def _until(lab: Lab, program: Program, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        where = f"{program.service} on {program.host}"
        if processes.pid(lab.state, program) is None:
            raise LabError(f"{where} has ended; its log says:\n{processes.tail(lab.state, program)}")
        if time.monotonic() > deadline:
            raise LabError(
                f"{where} is not ready after {seconds:.0f} s; its log says:\n{processes.tail(lab.state, program)}"
            )
        time.sleep(_POLL_SECONDS)
