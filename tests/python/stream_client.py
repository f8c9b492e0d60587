"""Prints each line of a stream as soon as it comes. Arguments: requests or httpx, URL."""

import ssl
import sys

library, url = sys.argv[1:]
if library == "requests":
    import requests

    with requests.get(url, stream=True, timeout=60) as answer:
        for line in answer.iter_lines(chunk_size=1):
            if line:
                print(line.decode(), flush=True)
else:
    import httpx

    with httpx.stream("GET", url, verify=ssl.create_default_context(), timeout=60) as answer:
        for line in answer.iter_lines():
            if line:
                print(line, flush=True)
