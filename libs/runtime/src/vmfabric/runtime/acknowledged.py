"""Publishing many messages to JetStream and waiting once for all their acknowledgements."""

import asyncio
import json
from collections.abc import Sequence
from itertools import count

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError, NoStreamResponseError

from vmfabric.contract.envelope import Outgoing

_NO_RESPONDERS = "503"


class _Batch:
    """Messages whose acknowledgements are awaited together."""

    def __init__(self, size: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing = size

    def acknowledged(self) -> None:
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(None)

    def refused(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Acknowledged:
    """One subscription hears the acknowledgements of every message, where a request each would cost a task, a timer
    and a future each.
    """

    def __init__(self, client: Client, *, seconds: float) -> None:
        self._client = client
        self._seconds = seconds
        self._inbox: asyncio.Task[str] | None = None
        self._numbers = count()
        self._waiting: dict[str, _Batch] = {}

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when the streams keep all of them. TimeoutError or an error of nats when one is not kept."""
        if not messages:
            return
        inbox = await self._listen()
        batch = _Batch(len(messages))
        numbers = [str(next(self._numbers)) for _ in messages]
        self._waiting |= dict.fromkeys(numbers, batch)
        try:
            async with asyncio.timeout(self._seconds):
                for number, message in zip(numbers, messages, strict=True):
                    await self._client.publish(
                        message.subject, message.body, reply=f"{inbox}.{number}", headers=message.headers or None
                    )
                await batch.done
        finally:
            for number in numbers:
                self._waiting.pop(number, None)

    async def _listen(self) -> str:
        # One task, so that two who publish first at the same time share one subscription.
        if self._inbox is None or (self._inbox.done() and self._inbox.exception() is not None):
            self._inbox = asyncio.create_task(self._subscribe())
        return await asyncio.shield(self._inbox)

    async def _subscribe(self) -> str:
        inbox = self._client.new_inbox()
        await self._client.subscribe(f"{inbox}.*", cb=self._heard)
        return inbox

    async def _heard(self, answer: Msg) -> None:
        batch = self._waiting.pop(answer.subject.rpartition(".")[2], None)
        if batch is None:
            return
        if answer.headers is not None and answer.headers.get("Status") == _NO_RESPONDERS:
            batch.refused(NoStreamResponseError())
        elif b'"error"' in answer.data:
            error = json.loads(answer.data)["error"]
            batch.refused(APIError(error.get("code"), error.get("description"), error.get("err_code")))
        else:
            batch.acknowledged()
