"""vtysh: a session that stays open for questions, and a process of its own for changes.

Measured: a process costs 30 ms, a question in an open session 0.2 ms.
"""

import asyncio
import itertools
import os
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process

import structlog

from vmfabric.bgp_announcer.ports import FrrDownError, FrrError
from vmfabric.contract.errors import Code

_ANSWER_SECONDS = 10.0
_NOT_RUNNING = ("is not running", "failed to connect to any daemons", "connecting to bgpd...failed")
_LIMIT_BYTES = 64 * 1024 * 1024

log = structlog.get_logger()


class Vtysh:
    """The vtysh of one FRR; `pathspace` is FRR's `-N`."""

    def __init__(self, pathspace: str | None = None, *, program: str = "vtysh") -> None:
        self._command = [program, *(["-N", pathspace] if pathspace else [])]
        self._session: Process | None = None
        self._numbers = itertools.count(1)
        self._turn = asyncio.Lock()

    async def ask(self, question: str) -> str:
        """The answer to one `show` command. FrrError when there is none, or only a part of one."""
        async with self._turn:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    return await self._asked(question)
            except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                raise _no_answer(question, error) from error
            finally:
                if not self._is_whole:
                    await self._close()

    async def ask_zebra(self, question: str) -> str:
        """The answer of zebra to one `show` command, by a process of its own."""
        status, output = await self._run("-c", question, daemon="zebra")
        if status or output.startswith("%"):
            raise FrrError(Code.INTERNAL, f"zebra does not answer {question!r} (status {status}): {output[-300:]}")
        return output

    async def running_config(self) -> str:
        """What bgpd has. Asked by a process of its own: a session whose bgpd has died answers, with nothing in it."""
        status, output = await self._run("-c", "show running-config")
        if status or "Current configuration:" not in output or not output.rstrip().endswith("end"):
            if any(words in output for words in _NOT_RUNNING):
                raise _down()
            said = output[-300:].strip()
            raise FrrError(Code.INTERNAL, f"bgpd does not show its configuration (status {status}): {said}")
        return output

    async def enter(self, script: str) -> None:
        """Run a script of configuration. FrrError with FRR's complaints when it did not take every line."""
        with tempfile.NamedTemporaryFile("w", prefix="vmfabric-", suffix=".vtysh") as file:
            file.write(script)
            file.flush()
            status, output = await self._run("-f", file.name)
        # It goes on after a line that it does not take.
        complaints = [line for line in output.splitlines() if line.startswith(("%", "line "))]
        if status or complaints:
            said = "; ".join(complaints) or output.strip()[-500:]
            raise FrrError(Code.INTERNAL, f"FRR did not take a change (status {status}): {said}")

    async def _run(self, *arguments: str, daemon: str = "bgpd") -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *self._command, "-d", daemon, *arguments, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise FrrError(Code.INTERNAL, f"vtysh took more than {_ANSWER_SECONDS} s; is FRR running?") from error
        return process.returncode, output.decode(errors="replace")

    async def close(self) -> None:
        """End the session."""
        async with self._turn:
            await self._close()

    async def _asked(self, question: str) -> str:
        # Of a question that is interrupted half way the rest of the answer would be taken for that to the next one.
        self._is_whole = False
        session = self._session if self._session and self._session.returncode is None else await self._open()
        if session.stdin is None or session.stdout is None:
            raise OSError("vtysh has no pipe")
        mark = f"vmfabric-{next(self._numbers)}"
        # No command of this name exists: FRR's complaint about it comes when everything before has been answered.
        session.stdin.write(f"{question}\n{mark}\n".encode())
        await session.stdin.drain()
        answer = await session.stdout.readuntil(f"% Unknown command: {mark}\n".encode())
        self._is_whole = True
        return _between(answer.decode(errors="replace"), question, mark)

    _is_whole = True

    async def _open(self) -> Process:
        self._session = await asyncio.create_subprocess_exec(
            *self._command, "-d", "bgpd", stdin=PIPE, stdout=PIPE, stderr=STDOUT, limit=_LIMIT_BYTES,
            env={**os.environ, "VTYSH_PAGER": "cat"},
        )  # fmt: skip
        return self._session

    async def _close(self) -> None:
        session, self._session = self._session, None
        self._is_whole = True
        if session is not None and session.returncode is None:
            session.kill()
            await session.wait()


def _no_answer(question: str, error: Exception) -> FrrError:
    said = error.partial.decode(errors="replace") if isinstance(error, asyncio.IncompleteReadError) else str(error)
    if any(words in said for words in _NOT_RUNNING):
        return _down()
    return FrrError(Code.INTERNAL, f"bgpd does not answer {question!r} ({error!r}); is FRR running?")


def _down() -> FrrDownError:
    return FrrDownError(Code.INTERNAL, "bgpd of this node does not run: start FRR")


def _between(text: str, question: str, mark: str) -> str:
    """What stands between the echo of the question and that of the mark."""
    lines = text.splitlines()
    starts = [index for index, line in enumerate(lines) if line.endswith(f"# {question}")]
    ends = [index for index, line in enumerate(lines) if line.endswith(f"# {mark}")]
    if not starts or not ends:
        raise OSError(f"vtysh answered something else: {text[-300:]!r}")
    answer = lines[starts[-1] + 1 : ends[-1]]
    complaints = [line for line in answer if line.startswith(("%", "Warning:")) or line.endswith("is not running")]
    if complaints:
        raise OSError("; ".join(complaints))
    return "\n".join(answer)
