"""`bedside demo`: the main job, end to end, with real processes and checked expectations."""

from bedside.demo.run import run_demo

__all__ = ["run_demo"]
