"""Requests by httpx. Arguments: URL, API key, h1 or h2."""

import json
import ssl
import sys

import httpx

url, key, protocol = sys.argv[1:]
context = ssl.create_default_context()
with httpx.Client(http1=protocol == "h1", http2=protocol == "h2", verify=context, timeout=60) as client:
    answer = client.post(url, json={"n": 1}, headers={"Authorization": f"Bearer {key}"})
print(json.dumps({"status": answer.status_code, "protocol": answer.http_version, "seen": answer.json()}))
