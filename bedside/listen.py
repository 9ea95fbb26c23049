"""Listening sockets, made before anything else so that port 0 has an answer."""

import socket
from pathlib import Path
from typing import Final

from bedside.errors import BedsideError

BACKLOG: Final = 2048


def listen_tcp(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 takes a free one.

    Raises:
        BedsideError: if the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _listening(listener, (host, port), f"{host} port {port}")


def listen_unix(path: Path) -> socket.socket:
    """Return a socket listening at `path`, which only this user may connect to.

    Raises:
        BedsideError: if it cannot be bound.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = _listening(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), str(path), str(path))
    path.chmod(0o600)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the base URL of a TCP listener."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _listening(listener: socket.socket, address: tuple[str, int] | str, name: str) -> socket.socket:
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise BedsideError(f"cannot listen on {name}: {error.strerror}; choose another") from error
    return listener
