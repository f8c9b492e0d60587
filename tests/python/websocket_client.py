"""A WebSocket client. Arguments: URL, API key.

Sends text, bytes, a large message that does not compress, a larger one that does and holds the key, and asks for a ping; prints the
extension in use, what came back and how it ended.
"""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def main() -> None:
    url, key = sys.argv[1:]
    context = ssl.create_default_context()
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with connect(url, ssl=context, additional_headers=headers, max_size=None, open_timeout=60) as socket:
            print(*(extension.name for extension in socket.protocol.extensions), flush=True)
            large = "a" * 500_000 + key.ljust(100) + "b" * 500_000
            for message in ["hello", b"\x00\x01\x02", os.urandom(300_000), large, "ping me"]:
                await socket.send(message)
                same = await socket.recv() == message
                print(len(message), "same" if same else "different", flush=True)
            await socket.send("bye")
            try:
                await socket.recv()
            except ConnectionClosed as end:
                print("closed", end.rcvd.code, end.rcvd.reason)
    except InvalidStatus as refusal:
        print("refused", refusal.response.status_code)
        sys.exit(1)


asyncio.run(main())
