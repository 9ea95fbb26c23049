"""An asyncio client whose coroutines are run to their end, so that one suite serves both kinds."""

import asyncio


class Awaited:
    """Stands for the client that `make` makes on an event loop of its own."""

    def __init__(self, make):
        self._runner = asyncio.Runner()
        self._client = self._run(make)

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._run(method, *args, **kwargs)

    def _run(self, function, *args, **kwargs):
        async def call():
            result = function(*args, **kwargs)
            return await result if asyncio.iscoroutine(result) else result

        return self._runner.run(call())

    def leave(self):
        self._run(self._client.close)
        self._runner.close()
