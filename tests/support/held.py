"""Runs of models that wait until a test lets them go."""

import asyncio

from inference_node import Node


class Held:
    """A node whose runs wait until they are let go."""

    def __init__(self, monkeypatch):
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.deadlines = []
        self._changed = asyncio.Condition()
        infer = Node.infer

        async def held(node, name, version, request, deadline=None, **more):
            async with self._changed:
                self.deadlines.append(deadline)
                self._changed.notify_all()
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return await infer(node, name, version, request, deadline, **more)

        monkeypatch.setattr(Node, "infer", held)

    async def begun(self, count=1):
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.deadlines) >= count)
