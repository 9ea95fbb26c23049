"""An ASGI application on a real server and a free port, in the tests' own event loop."""

import asyncio
from contextlib import asynccontextmanager

from bedside.http import serve_http
from bedside.listen import listen_tcp


@asynccontextmanager
async def on_a_port(app, **options):
    """Serve `app` and give its port; `options` are those of `serve_http`."""
    listener = listen_tcp("127.0.0.1", 0)
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve_http(app, listener, stop, ready.set, **options))
    await ready.wait()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)
