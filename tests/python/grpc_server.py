"""A gRPC server over TLS without generated code. Arguments: certificate file, key file.

Prints its port, then the `authorization` metadata of each call. `Echo` answers with what it got;
`Count` answers 1, 2, 3, … and waits for a line on standard input before each.
"""

import sys
from concurrent import futures

import grpc


def authorization(context: grpc.ServicerContext) -> str:
    return dict(context.invocation_metadata()).get("authorization", "none")


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    print("authorization", authorization(context), flush=True)
    context.set_trailing_metadata((("x-checksum", "adds-up"),))
    return request


def count(request: bytes, context: grpc.ServicerContext):
    print("authorization", authorization(context), flush=True)
    for n in range(1, int(request) + 1):
        sys.stdin.readline()
        yield str(n).encode()


def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")


handlers = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
}
with open(sys.argv[1], "rb") as certificate, open(sys.argv[2], "rb") as key:
    credentials = grpc.ssl_server_credentials([(key.read(), certificate.read())])
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("sample.Sample", handlers),))
port = server.add_secure_port("127.0.0.1:0", credentials)
server.start()
print("port", port, flush=True)
server.wait_for_termination()
