"""Makes the wheel that the package index of the tests offers. Argument: the file to write."""

import base64
import hashlib
import sys
import zipfile

INFO = "keyferry_sample-1.0.dist-info"

files = {
    "keyferry_sample.py": 'GREETING = "hello from the wheel"\n',
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: keyferry-sample\nVersion: 1.0\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: keyferry-tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def record(name: str, content: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=")
    return f"{name},sha256={digest.decode()},{len(content)}\n"


lines = "".join(record(name, content) for name, content in files.items())
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    for name, content in files.items():
        wheel.writestr(name, content)
    wheel.writestr(f"{INFO}/RECORD", lines + f"{INFO}/RECORD,,\n")
