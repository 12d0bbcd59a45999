"""The bus on this machine's loopback address: a listening socket outside, and connections made inside the lab.

The lab has no interface and no address on the machine that it runs on. This process lives in the control host's
namespace, gets as descriptor 3 a socket that listens outside, and passes bytes on to the bus.
"""

import asyncio
import contextlib
import socket
import sys

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


async def _serve(listener: socket.socket, host: str, port: int) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()  # the bus is away, and that is what the caller should see
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(reader, inner_writer))
            both.create_task(_copy(inner_reader, writer))

    server = await asyncio.start_server(pass_on, sock=listener)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(socket.socket(fileno=3), sys.argv[1], int(sys.argv[2])))
