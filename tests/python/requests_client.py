"""A request by requests, as a program in a sandbox makes it. Arguments: URL, API key."""

import json
import sys

import requests

url, key = sys.argv[1:]
with requests.Session() as session:
    answers = [
        session.post(url, json={"n": n}, headers={"Authorization": f"Bearer {key}"}, timeout=60) for n in range(2)
    ]
print(json.dumps([{"status": answer.status_code, "seen": answer.json()} for answer in answers]))
