"""The bus on this machine's loopback address: a listening socket outside, and connections made inside the lab.

The lab has no interface and no address on the machine that it runs on. This process lives in the control host's
namespace, gets as descriptor 3 a socket that listens outside, and passes bytes on to the first server of the bus that
takes a connection.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence

import uvloop

_CHUNK = 256 * 1024


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _open(host: str, ports: Sequence[int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    for port in ports:
        with contextlib.suppress(OSError):  # the next one may be there
            return await asyncio.open_connection(host, port)
    return None


async def _serve(listener: socket.socket, host: str, ports: Sequence[int]) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = await _open(host, ports)
        if opened is None:
            writer.close()  # the bus is away, and that is what the caller should see
            return
        inner_reader, inner_writer = opened
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(reader, inner_writer))
            both.create_task(_copy(inner_reader, writer))

    server = await asyncio.start_server(pass_on, sock=listener)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(socket.socket(fileno=3), sys.argv[1], [int(port) for port in sys.argv[2:]]))
