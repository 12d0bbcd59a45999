"""nats-server and Postgres on the control host."""

import socket
from pathlib import Path
from signal import Signals

from vmfabric.lab import namespaces, server_commands
from vmfabric.lab.errors import LabError
from vmfabric.lab.processes import Program, python
from vmfabric.lab.programs import run
from vmfabric.lab.state import State
from vmfabric.lab.topology import CONTROL, Topology

_NATS_PORT = 4222
_NATS_CLUSTER_PORT = 6222
_POSTGRES_PORT = 5432
_DATABASE = "vmfabric"
_SEGMENTS = Path("/proc/sysvipc/shm")
_SEGMENT_LINE = 6
"""Key and number of the segment in postmaster.pid, counted from 0."""
DATABASE_SERVICES = ("scheduler", "ipam")
"""Each has a role of its name, which makes the schema of its name."""


def nats_url(topology: Topology) -> str:
    """Where services inside the lab find the bus: each of its servers, with commas between."""
    return ",".join(f"nats://{topology.management.control}:{_NATS_PORT + each}" for each in range(topology.nats))


def operators_url(topology: Topology) -> str:
    """Where this machine finds the bus."""
    return f"nats://127.0.0.1:{topology.port}"


def database_url(topology: Topology, service: str) -> str:
    """Where a service on the control host finds its database: of several servers, the one that takes writes.

    Nothing outside of that namespace can reach it.
    """
    hosts = ",".join(f"127.0.0.1:{_POSTGRES_PORT + number}" for number in range(topology.postgres))
    writable = "?target_session_attrs=read-write" if topology.postgres > 1 else ""
    return f"postgresql://{service}@{hosts}/{_DATABASE}{writable}"


def postgres_directory(state: State, number: int = 0) -> Path:
    """Where a Postgres keeps its data and its socket."""
    return state.of_service(CONTROL, copy_of("postgres", number))


def copy_of(service: str, number: int) -> str:
    """The name of one of several programs that do the same, counted from 0: `nats`, `nats-2`, `nats-3`."""
    return f"{service}-{number + 1}" if number else service


def original(service: str) -> str:
    """What a copy is one of."""
    return service.rstrip("0123456789").removesuffix("-")


def nats(state: State, topology: Topology) -> tuple[Program, ...]:
    """The servers of the bus, on the management network."""
    return tuple(_nats(state, topology, number) for number in range(topology.nats))


def _nats(state: State, topology: Topology, number: int) -> Program:
    name, host = copy_of("nats", number), str(topology.management.control)
    command = server_commands.nats_command(state.of_service(CONTROL, name), host=host, port=_NATS_PORT + number)
    if topology.nats > 1:
        peers = [f"{host}:{_NATS_CLUSTER_PORT + each}" for each in range(topology.nats)]
        command += server_commands.nats_cluster(name, listens=peers[number], routes=peers)
    return Program(name, CONTROL, namespaces.inside(topology.namespace(CONTROL), *command))


def postgres(state: State, topology: Topology) -> tuple[Program, ...]:
    """The database and its standby, on the control host's loopback address."""
    return tuple(_postgres(state, topology, number) for number in range(topology.postgres))


def _postgres(state: State, topology: Topology, number: int) -> Program:
    directory = postgres_directory(state, number)
    command = server_commands.postgres_command(directory, port=_POSTGRES_PORT + number)
    unprivileged = server_commands.as_postgres_user(directory)
    inside = namespaces.inside(topology.namespace(CONTROL), *unprivileged, *command)
    # SIGTERM would wait until every client has gone by itself.
    return Program(copy_of("postgres", number), CONTROL, inside, ends_by=Signals.SIGINT)


def door(topology: Topology) -> Program:
    """The way from this machine's loopback address to the bus."""
    ports = [str(_NATS_PORT + each) for each in range(topology.nats)]
    command = python("vmfabric.lab.door", str(topology.management.control), *ports)
    return Program("door", CONTROL, namespaces.inside(topology.namespace(CONTROL), *command), takes_door=True)


def supervisor(state: State, topology: Topology) -> Program:
    """What starts all other processes, and starts them again when they end. It holds the door's socket."""
    # It starts hypervisors, which need the machine's mount namespace; ip-netns(8) leaves it.
    inside = ("nsenter", f"--net={namespaces.DIRECTORY / topology.namespace(CONTROL)}")
    return Program("supervisor", CONTROL, (*inside, *python("vmfabric.lab.supervisor", str(state.directory))))


def listen(topology: Topology) -> socket.socket:
    """The door's socket. LabError when the port is in use."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", topology.port))
    except OSError as error:
        listener.close()
        raise LabError(
            f"the lab's bus should be at 127.0.0.1:{topology.port}, but something else listens there: stop it, or "
            "give the lab another `port` in its topology file"
        ) from error
    listener.listen(128)
    return listener


def prepare(state: State, topology: Topology) -> None:
    """Make the directories of the servers and an empty database cluster."""
    for server in (*nats(state, topology), *postgres(state, topology)):
        state.of_service(server.host, server.service).mkdir(parents=True)
    # In the lab, so that who takes it down finds what a killed command has left at work.
    server_commands.prepare_postgres(postgres_directory(state), namespaces.inside(topology.namespace(CONTROL)))


def create_database(state: State) -> None:
    """Make the database and the role of each service that has a schema in it."""
    _psql(state, "postgres", f"CREATE DATABASE {_DATABASE}")
    for service in DATABASE_SERVICES:
        _psql(state, _DATABASE, f"CREATE ROLE {service} LOGIN")
        _psql(state, _DATABASE, f"GRANT CREATE ON DATABASE {_DATABASE} TO {service}")


def prepare_standby(state: State, topology: Topology) -> None:
    """Make the second Postgres a copy of the first, which runs, and will follow it."""
    server_commands.prepare_standby(
        postgres_directory(state, 1),
        of=postgres_directory(state),
        port=_POSTGRES_PORT,
        inside=namespaces.inside(topology.namespace(CONTROL)),
    )


def replicate(state: State, *, synchronously: bool) -> None:
    """Have a commit wait until the standby has it too, or not."""
    _psql(state, "postgres", f"ALTER SYSTEM SET synchronous_standby_names = '{'*' if synchronously else ''}'")
    _psql(state, "postgres", "SELECT pg_reload_conf()")


def promote(state: State) -> None:
    """Make the standby take writes, once and for all; the first Postgres must be gone."""
    _psql(state, "postgres", "SELECT pg_promote()", number=1)


def postgres_answers(state: State, number: int = 0) -> bool:
    """Whether a Postgres takes connections."""
    directory = postgres_directory(state, number)
    if not (directory / f".s.PGSQL.{_POSTGRES_PORT + number}").exists():
        return False
    try:
        _psql(state, "postgres", "SELECT 1", number=number)
    except LabError:  # it is starting; whoever waits has a deadline and shows its log
        return False
    return True


def remove_shared_memory(state: State, topology: Topology) -> None:
    """Remove the System V segments that a Postgres which was killed has left behind."""
    for number in range(topology.postgres):
        _remove_segment(postgres_directory(state, number) / "data" / "postmaster.pid")


def _remove_segment(lock: Path) -> None:
    if not lock.exists():
        return
    lines = lock.read_text().splitlines()
    if len(lines) < _SEGMENT_LINE + 1:
        return
    key, identity = lines[_SEGMENT_LINE].split()
    for row in _SEGMENTS.read_text().splitlines()[1:]:
        fields = row.split()
        # After a reboot the number may be somebody else's: only with the same key, maker, and nobody attached.
        if (fields[0], fields[1], fields[4], fields[6]) == (key, identity, lines[0], "0"):
            run("ipcrm", "-m", identity)


def _psql(state: State, database: str, statement: str, number: int = 0) -> None:
    directory = postgres_directory(state, number)
    # By its socket in the file system, which is there in every network namespace.
    run(
        *(
            server_commands.postgres_program(directory, "psql"),
            "-h",
            str(directory),
            "-p",
            str(_POSTGRES_PORT + number),
        ),
        *("-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-qAtc", statement),
    )
