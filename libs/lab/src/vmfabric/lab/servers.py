"""nats-server and Postgres from PyPI, as direct children of whoever starts them."""

import asyncio
import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
import nats
import nats.errors

from vmfabric.lab.errors import ServerFailedError
from vmfabric.lab.server_commands import nats_command, postgres_command, postgres_user, prepare_postgres

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0


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


async def _ignore(_error: Exception) -> None:
    """The client's own complaint while the server is not up yet; the caller sees the exception."""
