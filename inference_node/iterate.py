"""Runs a model step by step, outputs fed back to inputs: autoregressive forecasts and the like."""

from collections.abc import AsyncGenerator

from inference_node.batch import Feed
from inference_node.batcher import Batcher
from inference_node.errors import ExecutionFailed, InputInvalid
from inference_node.model_config import Iteration
from inference_node.oip import Array, InferRequest

STEPS = "steps"


def steps_wanted(iteration: Iteration, request: InferRequest) -> int:
    """Return how many steps a request asks for; the model's own number if it does not say.

    Raises:
        InputInvalid: if it asks for none, or for more than the model gives.
    """
    steps = request.parameters.get(STEPS, iteration.steps)
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= iteration.steps:
        raise InputInvalid(f"the parameter steps must be 1 to {iteration.steps}")
    return steps


async def iterate(
    batcher: Batcher,
    iteration: Iteration,
    feed: Feed,
    names: tuple[str, ...],
    rows: int,
    steps: int,
    deadline: float | None,
    *,
    priority: int,
    timeout_s: float,
) -> AsyncGenerator[list[Array], None]:
    """Yield the outputs `names` of each of `steps` steps.

    Every step is a request of its own to the batcher, so steps of several callers run together. The
    next step is not begun before this one's answer was taken: who stops reading stops the work.

    Raises:
        QueueFull, DeadlineExceeded, ExecutionFailed: as `Batcher.submit`.
    """
    wanted = (*names, *(name for name in iteration.feedback if name not in names))
    with batcher.held():
        for step in range(steps):
            results = await batcher.submit(
                feed, wanted, rows, deadline, priority=priority, timeout_s=timeout_s
            )
            yield results[: len(names)]
            if step + 1 < steps:
                given = dict(zip(wanted, results, strict=True))
                fed = {taken: given[output] for output, taken in iteration.feedback.items()}
                if any(fed[name].shape != feed[name].shape for name in fed):
                    raise ExecutionFailed("a step's output has another shape than the input it becomes")
                feed = {**feed, **fed}
