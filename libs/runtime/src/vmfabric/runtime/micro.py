"""Request and reply as NATS micro services (ADR-32): `nats micro ls`, `nats req cluster.list '{}'`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import nats.errors
import nats.micro
import structlog
from nats.aio.client import Client
from nats.micro.request import ERROR_HEADER, ServiceError
from nats.micro.request import Request as MicroRequest
from nats.micro.service import EndpointConfig, EndpointStats, ServiceConfig
from pydantic import BaseModel, ValidationError

from vmfabric.contract.errors import Code, Refused, TryAgain, VmfabricError
from vmfabric.contract.model import Request
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.complaints import repeated_field, sentence

_HANDLER_SECONDS = 10.0
VERSION = "0.1.0"

Q = TypeVar("Q", bound=Request)
A = TypeVar("A", bound=BaseModel)

log = structlog.get_logger()


class Ask(Protocol):
    """Asks another service: Refused with its sentence, TryAgain when nobody answers."""

    async def __call__(self, subject: str, asked: Request, answer: type[A]) -> A: ...


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Q]):
    """Which request goes to which function."""

    subject: str
    request: type[Q]
    handler: Callable[[Q], Awaitable[BaseModel]]
    description: str


async def serve(bus: Bus, *, name: str, description: str, endpoints: Sequence[Endpoint[Any]]) -> None:
    """Answer until cancelled. An empty body means `{}`."""
    await bus.connected()
    service = await nats.micro.add_service(
        bus.client,
        ServiceConfig(name=name, version=VERSION, description=description, stats_handler=_no_further_stats),
    )
    for endpoint in endpoints:
        await service.add_endpoint(
            EndpointConfig(
                name=endpoint.subject.replace(".", "-"),
                subject=endpoint.subject,
                handler=_answer(endpoint),
                metadata={"description": endpoint.description},
            )
        )
    await bus.client.flush()
    try:
        await asyncio.Event().wait()
    finally:
        await service.stop()


def _no_further_stats(_stats: EndpointStats) -> dict[str, str]:
    # The command line's schema check refuses statistics whose data is not an object.
    return {}


def _answer(endpoint: Endpoint[Any]) -> Callable[[MicroRequest], Awaitable[None]]:
    async def handle(request: MicroRequest) -> None:
        body = request.data or b"{}"
        try:
            asked = endpoint.request.model_validate_json(body)
        except ValidationError as error:
            raise _error(Code.INVALID_REQUEST, sentence(error)) from error
        if name := repeated_field(body):
            raise _error(Code.INVALID_REQUEST, f"the field {name!r} stands there twice; which one is meant?")
        try:
            async with asyncio.timeout(_HANDLER_SECONDS):
                answer = await endpoint.handler(asked)
        except VmfabricError as error:
            raise _error(error.code, error.sentence) from error
        except TimeoutError as error:
            log.warning("admin.timed_out", subject=endpoint.subject, seconds=_HANDLER_SECONDS)
            message = (
                f"{endpoint.subject} was not done within {_HANDLER_SECONDS:g} s: the service starts, or its database "
                "is slow; ask again"
            )
            raise _error(Code.INTERNAL, message) from error
        except Exception as error:
            log.exception("admin.failed", subject=endpoint.subject)
            message = f"{endpoint.subject} failed: {type(error).__name__}; the log of the service says more"
            raise _error(Code.INTERNAL, message) from error
        await request.respond(answer.model_dump_json(exclude_none=True).encode())

    return handle


def _error(code: Code, message: str) -> ServiceError:
    """Raised, not answered, so that the service's statistics count it. Headers carry `<code>: <sentence>`."""
    one_line = " ".join(message.split())[:2000].encode("ascii", "backslashreplace").decode()
    return ServiceError("500" if code is Code.INTERNAL else "400", f"{code}: {one_line}")


async def ask(bus: Bus, subject: str, asked: BaseModel, answer: type[A], *, seconds: float = 3.0) -> A:
    """Ask another service. Refused with its code and sentence, TryAgain when nobody answers."""
    return answer.model_validate_json(
        await request(bus.client, subject, asked.model_dump_json().encode(), seconds=seconds)
    )


async def request(client: Client, subject: str, body: bytes, *, seconds: float = 5.0) -> bytes:
    """Ask an endpoint. Refused with the answer's code and sentence, TryAgain when nobody answers."""
    try:
        reply = await client.request(subject, body, timeout=seconds)
    except nats.errors.NoRespondersError as error:
        sentence = f"no service answers {subject}: it does not run, or waits for its database"
        raise TryAgain(Code.INTERNAL, sentence) from error
    except TimeoutError as error:
        raise TryAgain(Code.INTERNAL, f"{subject} was not answered within {seconds} s") from error
    headers = reply.headers or {}
    if ERROR_HEADER in headers:
        code, _, message = headers[ERROR_HEADER].partition(": ")
        known = code in set(Code)
        raise Refused(Code(code) if known else Code.INTERNAL, message if known else headers[ERROR_HEADER])
    return reply.data
