"""Binding the ports that we listen on."""

import errno
import os
import socket

from reqon.errors import ConfigurationError

BACKLOG = 128  # connections that wait to be accepted


def bound_socket(host: str, port: int, *, purpose: str, host_option: str) -> socket.socket:
    """A socket that listens at the address; port 0 picks a free one. It never blocks.

    `purpose` is what `--…-port` calls it, `host_option` the flag that named the host.

    Raises:
        ConfigurationError: the address cannot be had; says why and who may have it. Exit 3.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise _failure(host, port, error, purpose=purpose, host_option=host_option) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise _failure(host, port, error, purpose=purpose, host_option=host_option) from error
    return bound


def _failure(
    host: str, port: int, error: OSError | OverflowError, *, purpose: str, host_option: str
) -> ConfigurationError:
    option, where = f"--{purpose}-port", f"{host}:{port}"
    number = error.errno if isinstance(error, OSError) and not isinstance(error, socket.gaierror) else None
    if number == errno.EADDRINUSE:
        also = "; a Prometheus server uses 9090 as well" if port == 9090 else ""
        return ConfigurationError(
            f"{option}: {where} is taken by another program{also}",
            hint=f"choose another port, as in {option} {port + 1 if port < 65_535 else 9091}, or 0 for a free one",
        )
    if number == errno.EACCES:
        return ConfigurationError(f"{option}: {where} is not allowed for this user", hint="ports from 1024 on are")
    reason = os.strerror(number).lower() if number else str(error)
    return ConfigurationError(
        f"{option}: cannot listen on {where}: {reason}",
        hint=f"{host_option} takes an address of this machine: 127.0.0.1, or 0.0.0.0 for all",
    )
