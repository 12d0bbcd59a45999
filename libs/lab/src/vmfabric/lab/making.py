"""The lab brought up and taken down."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

from vmfabric.lab import control_plane, frr, guests, namespaces, network, processes, supervision
from vmfabric.lab.answers import wait_until_answers
from vmfabric.lab.errors import LabError, LabIsUpError
from vmfabric.lab.lab import Lab
from vmfabric.lab.state import Record, State
from vmfabric.lab.topology import CONTROL, Router, Topology

Step = Callable[[str], AbstractContextManager[None]]
"""Told what is being done, for as long as it is done."""

_SESSION_SECONDS = 20.0
_POLL_SECONDS = 0.05


@contextmanager
def silently(_what: str) -> Iterator[None]:
    """A step that nobody watches."""
    yield


def up(topology: Topology, state: State, step: Step = silently, *, with_services: bool = True) -> Lab:
    """Make the lab; returns when everything in it answers. What a killed run has left is removed first.

    Without services it is the data centre alone: network, routers, bus and database. LabError when something of it
    does not come up, with the end of its log; what was made is then still there to be looked at.
    """
    with state.locked():
        if (record := state.record()) is not None:
            if record.ready and namespaces.processes(record.topology.namespaces()):
                raise LabIsUpError(f"the lab in {state.directory} is up already")
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
        if topology.routers:
            with step(f"routers: FRR on {', '.join(router.name for router in topology.routers)}"):
                _start_routers(lab)
        if with_services:
            with step(f"services: {', '.join(dict.fromkeys(program.service for program in lab.services()))}"):
                _start_services(lab)
        if topology.core is not None:
            with step("sessions: core and reflectors"):
                _wait_for_sessions(lab, topology.core)
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
    control_plane.remove_shared_memory(state, topology)
    # A command that a killed `lab up` had just started may have made one meanwhile.
    namespaces.remove(topology.namespaces())
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
    control_plane.prepare(lab.state, lab.topology)
    database, *standbys = control_plane.postgres(lab.state, lab.topology)
    for server in lab.servers():
        if server not in standbys:
            supervision.start(lab.state, server, lab.supervisor)
    wait_until_answers(lab, database)
    control_plane.create_database(lab.state)
    for standby in standbys:
        control_plane.prepare_standby(lab.state, lab.topology)
        supervision.start(lab.state, standby, lab.supervisor)
        wait_until_answers(lab, standby)
        control_plane.replicate(lab.state, synchronously=True)
    wait_until_answers(lab, lab.program("door", CONTROL))


def _start_routers(lab: Lab) -> None:
    with ThreadPoolExecutor(len(lab.topology.routers)) as pool:
        for done in [
            pool.submit(frr.start, lab.topology, router, lab.frr_log(router)) for router in lab.topology.routers
        ]:
            done.result()


def _wait_for_sessions(lab: Lab, core: Router) -> None:
    deadline = time.monotonic() + _SESSION_SECONDS
    while missing := frr.sessions_down(lab.topology, core):
        if time.monotonic() > deadline:
            raise LabError(
                f"{core.name} has no BGP session with {', '.join(missing)}; its log is {lab.frr_log(core)}"
            )
        time.sleep(_POLL_SECONDS)


def _start_services(lab: Lab) -> None:
    for program in lab.services():
        lab.state.of_service(program.host, program.service).mkdir(parents=True)
        supervision.start(lab.state, program, lab.supervisor)
    for program in lab.services():
        wait_until_answers(lab, program)


def start_supervisor(lab: Lab) -> None:
    """Start the supervisor of a lab whose last one has ended; all that runs goes on. LabError when it runs."""
    if processes.pid(lab.state, lab.supervisor) is not None:
        raise LabError("the lab's supervisor runs already")
    door = control_plane.door(lab.topology)
    if (process := processes.pid(lab.state, door)) is not None:  # its socket is the one that the last supervisor had
        supervision.end(lab.state, door, process, door.ends_by)
    with control_plane.listen(lab.topology) as listener:
        supervision.begin(lab.state, lab.supervisor, listener.fileno())
