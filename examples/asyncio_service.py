"""An asyncio service that answers a request once its record is on disk.

python asyncio_service.py ./orders.socket
"""

import asyncio
import signal
import sys

import logengine


async def main(path: str) -> None:
    """Serves until SIGTERM; leaving the `async with` waits for the last records."""
    async with logengine.AsyncClient("orders") as log:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async for line in reader:
                order = line.decode().strip()
                # Waits only for room in memory, so almost never.
                place = await log.send({"level": "info", "event": "order", "order": order})
                # Waits for the disk. Omit this if losing a record is acceptable.
                await log.durable(place)
                writer.write(b"accepted %s\n" % order.encode())
            writer.close()

        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        server = await asyncio.start_unix_server(serve, path)
        await log.send({"level": "info", "event": "ready"})
        await stopped.wait()
        server.close()
        await log.send({"level": "info", "event": "stopped"})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
