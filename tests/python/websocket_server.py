"""A WebSocket server over TLS. Arguments: certificate file, key file.

Prints its port, then the `Authorization` field of each handshake and the word between runs of `a` and
`b`. Sends every message back, `bye` with close code 4001, and `ping me` with a ping whose answer it awaits first.
"""

import asyncio
import ssl
import sys

from websockets.asyncio.server import ServerConnection, serve


async def answer(connection: ServerConnection) -> None:
    print("authorization", connection.request.headers.get("Authorization", "none"), flush=True)
    async for message in connection:
        if message == "ping me":
            await (await connection.ping())
        if message == "bye":
            await connection.close(4001, "as you wish")
            return
        if message[:1] == "a":
            print("token", message.strip("ab").strip(), flush=True)
        await connection.send(message)


async def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[1:])
    async with serve(answer, "127.0.0.1", 0, ssl=context, max_size=None) as server:
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
