"""A gRPC client. Arguments: host:port, API key, then echo TEXT, count N or refuse.

Prints each message as it comes, then the status and the trailing metadata.
"""

import sys

import grpc

target, key, call, *rest = sys.argv[1:]
metadata = (("authorization", f"Bearer {key}"),)
with grpc.secure_channel(target, grpc.ssl_channel_credentials()) as channel:
    try:
        if call == "count":
            answers = channel.unary_stream("/sample.Sample/Count")(rest[0].encode(), metadata=metadata, timeout=60)
            for message in answers:
                print(message.decode(), flush=True)
            print(answers.code().name)
        else:
            method = channel.unary_unary(f"/sample.Sample/{call.capitalize()}")
            message, answer = method.with_call("".join(rest).encode(), metadata=metadata, timeout=60)
            print(message.decode())
            print(answer.code().name, dict(answer.trailing_metadata()).get("x-checksum"))
    except grpc.RpcError as error:
        print(error.code().name, error.details())
        sys.exit(1)
