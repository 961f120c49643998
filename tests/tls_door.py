"""TLS before a PostgreSQL that was built without it, as the one in our wheels was.

    python3 tls_door.py PORT TARGET_HOST TARGET_PORT FOLDER

Takes PostgreSQL's request for TLS, shows FOLDER/tls.crt as it is at that moment, and hands on what was said inside.
The target is an address, or the folder of a socket. Needs nothing but Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import sys
from pathlib import Path

SSL_REQUEST = struct.pack("!ii", 8, 80877103)


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()


async def main(port: int, host: str, target: int, folder: Path) -> None:
    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                return  # who asks for no TLS gets nothing
            writer.write(b"S")
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
            await writer.start_tls(context)
            if host.startswith("/"):
                inside = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{target}")
            else:
                inside = await asyncio.open_connection(host, target)
            await asyncio.gather(pump(reader, inside[1]), pump(inside[0], writer))
        except (OSError, asyncio.IncompleteReadError) as fault:
            print(fault, file=sys.stderr, flush=True)
        finally:
            writer.close()

    async with await asyncio.start_server(taken, "0.0.0.0", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
