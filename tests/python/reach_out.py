"""Tries every way out of a sandbox that Python knows, and says what came of each."""

import errno
import os
import socket
import sys

tcp, udp, abstract, other, pid = sys.argv[1:]


def attempt(name, act):
    try:
        said = act() or "allowed"
    except socket.gaierror:
        said = "gaierror"
    except OSError as error:
        said = errno.errorcode.get(error.errno, str(error))
    print(f"{name}: {said}")


def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.settimeout(5)
        made.connect(address)


def send(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(5)
        made.connect(address)
        made.send(b"x")
        made.send(b"x")
        made.recv(1)


def make(family, kind=socket.SOCK_RAW, protocol=0):
    socket.socket(family, kind, protocol).close()


def hidden_family():
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    # AF_VSOCK in the lower half, which is all that the kernel reads.
    if libc.syscall(41 if os.uname().machine == "x86_64" else 198, ctypes.c_long((1 << 32) | 40), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "")


def others():
    seen = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}
    return "none" if seen == {1, os.getpid()} else str(seen)


attempt("tcp to the host's loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", int(tcp))))
attempt("tcp to another address", lambda: connect(socket.AF_INET, ("192.0.2.1", 443)))
attempt("tcp over IPv6", lambda: connect(socket.AF_INET6, ("2001:db8::1", 443)))
attempt("udp to the host's loopback", lambda: send(("127.0.0.1", int(udp))))
attempt("udp to a name server", lambda: send(("192.0.2.53", 53)))
attempt("a name", lambda: socket.getaddrinfo("any.example", 443) and None)
attempt("a raw socket", lambda: make(socket.AF_INET, protocol=socket.IPPROTO_ICMP))
attempt("a packet socket", lambda: make(socket.AF_PACKET))
attempt("a packet socket by its old name", lambda: make(socket.AF_INET, 10 | socket.SOCK_CLOEXEC))
attempt("a vsock socket", lambda: make(socket.AF_VSOCK, socket.SOCK_STREAM))
attempt("a bluetooth socket", lambda: make(31))
attempt("an alg socket", lambda: make(socket.AF_ALG, socket.SOCK_SEQPACKET))
attempt("an xdp socket", lambda: make(44))
attempt("netlink for routes", lambda: make(socket.AF_NETLINK, protocol=0))
attempt("netlink for the firewall", lambda: make(socket.AF_NETLINK, protocol=12))
attempt("netlink for audit", lambda: make(socket.AF_NETLINK, protocol=9))
attempt("a family hidden behind upper bits", hidden_family)
attempt("a pair of vsock sockets", lambda: socket.socketpair(40) and None)
attempt("the host's abstract socket", lambda: connect(socket.AF_UNIX, "\0" + abstract))
attempt("another sandbox's socket", lambda: connect(socket.AF_UNIX, other))
attempt("the driver's process", lambda: open(f"/proc/{max(int(pid), 1000)}/environ").close())
attempt("processes other than ours", others)
attempt("the init's memory", lambda: open("/proc/1/mem", "r+b").close())
attempt("the init's environment", lambda: open("/proc/1/environ", "rb").close())
