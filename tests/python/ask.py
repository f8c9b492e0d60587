"""Two requests as a program in a sandbox makes them. Arguments: which client, URL, API key.

Prints what came back. Whatever goes wrong ends it, with the words that its user would see.
"""

import asyncio
import os
import sys


def requests(url, key):
    import requests

    with requests.Session() as session:
        for _ in range(2):
            answer = session.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
            answer.raise_for_status()
            yield answer.text


def httpx(url, key, http2=False):
    import httpx

    with httpx.Client(http2=http2, timeout=60) as client:
        for _ in range(2):
            answer = client.get(url, headers={"Authorization": f"Bearer {key}"})
            answer.raise_for_status()
            yield answer.text


def httpx_h2(url, key):
    return httpx(url, key, http2=True)


def urllib(url, key):
    import urllib.request

    for _ in range(2):
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            yield answer.read().decode()


def aiohttp(url, key):
    import aiohttp

    async def ask():
        async with aiohttp.ClientSession(trust_env=True, raise_for_status=True) as session:
            for _ in range(2):
                async with session.get(url, headers={"Authorization": f"Bearer {key}"}) as answer:
                    yield await answer.text()

    async def collect():
        return [text async for text in ask()]

    return asyncio.run(collect())


def openai(url, key):
    from openai import OpenAI

    client = OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
    for _ in range(2):
        stream = client.chat.completions.create(
            model="sample", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        yield "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def anthropic(url, key):
    from anthropic import Anthropic

    client = Anthropic(api_key=key, base_url=url, max_retries=0)
    for _ in range(2):
        with client.messages.stream(
            model="sample", max_tokens=16, messages=[{"role": "user", "content": "hello"}]
        ) as stream:
            yield "".join(stream.text_stream)


def slack_sdk(url, key):
    from slack_sdk import WebClient

    client = WebClient(token=key, base_url=f"{url}/api/")
    for _ in range(2):
        yield client.auth_test()["team"]


def google_auth(url, key):
    from google.auth.transport.requests import AuthorizedSession
    from google.oauth2.credentials import Credentials

    with AuthorizedSession(Credentials(token=key)) as session:
        for _ in range(2):
            answer = session.get(url)
            answer.raise_for_status()
            yield answer.text


def boto3(url, key):
    # The bearer token of Bedrock: the one credential of AWS that is sent as it is.
    os.environ["AWS_BEARER_TOKEN_BEDROCK"] = key
    import boto3
    from botocore.config import Config

    config = Config(retries={"total_max_attempts": 1})
    client = boto3.client("bedrock-runtime", region_name="eu-west-1", endpoint_url=url, config=config)
    for _ in range(2):
        answer = client.converse(modelId="sample", messages=[{"role": "user", "content": [{"text": "hello"}]}])
        yield answer["output"]["message"]["content"][0]["text"]


client, url, key = sys.argv[1:]
for text in globals()[client](url, key):
    print(text)
