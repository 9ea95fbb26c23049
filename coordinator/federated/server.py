"""The Flower ServerApp: one round out, one round back, and only the sum is kept."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from securesystemslib.dsse import Envelope

from coordinator.federated.job import FederatedJob, Outcome
from coordinator.federated.replies import Reply, accepted, read_reply
from coordinator.federated.rundir import RunFolder
from coordinator.federated.statistics import add

JOB: Final = "job"
POLL_S: Final = 0.25
PATIENCE_S: Final = 15.0

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the job in the run folder that the run's configuration names."""
    folder = RunFolder.named(str(context.run_config["run"]))
    timeout_s = float(context.run_config["timeout-s"])
    folder.write(run(grid, folder.job(), folder.cohort(), timeout_s))


def run(
    grid: Grid, document: bytes, cohort: Mapping[str, Ed25519PublicKey], timeout_s: float
) -> Outcome:
    """Send a signed job to every connected device and return the sum of what the cohort answers.

    Fewer than the job's minimum of valid replies give no sum at all.
    """
    envelope = Envelope.from_dict(json.loads(document))
    job = msgspec.json.decode(envelope.payload, type=FederatedJob)
    deadline = time.monotonic() + timeout_s
    nodes = _connected(grid, len(cohort), job.cohort_minimum, deadline)
    if len(nodes) < job.cohort_minimum:
        return Outcome(cohort=0, problem="too few devices are connected")
    replies = _ask(grid, nodes, document, job, deadline)
    vectors = accepted(replies, job.id, cohort)
    if len(vectors) < job.cohort_minimum:
        return Outcome(cohort=0, problem="too few devices answered with valid counts")
    return Outcome(cohort=len(vectors), total=add(vectors, job.bins).tolist())


def _connected(grid: Grid, wanted: int, minimum: int, deadline: float) -> list[int]:
    """Return the connected nodes: as many as the cohort has devices, or those there after 15 s.

    A cohort that has not reached its minimum is waited for until the deadline.
    """
    patience = time.monotonic() + PATIENCE_S
    while True:
        nodes = list(grid.get_node_ids())
        now = time.monotonic()
        enough = len(nodes) >= wanted or (len(nodes) >= minimum and now >= patience)
        if enough or now >= deadline:
            return nodes
        time.sleep(POLL_S)


def _ask(
    grid: Grid, nodes: list[int], document: bytes, job: FederatedJob, deadline: float
) -> Iterator[Reply]:
    """Ask each node and yield the well-formed replies as they come, until the deadline."""
    ttl_s = max(deadline - time.monotonic(), 1.0)
    messages = [
        Message(
            content=RecordDict({JOB: ConfigRecord({"document": document})}),
            message_type=f"query.{job.kind}",
            dst_node_id=node,
            ttl=ttl_s,
        )
        for node in nodes
    ]
    waiting = {message_id for message_id in grid.push_messages(messages) if message_id}
    # Not Grid.send_and_receive: it looks every 3 s, which is most of a round.
    while waiting and time.monotonic() < deadline:
        for message in grid.pull_messages(list(waiting)):
            waiting.discard(message.metadata.reply_to_message_id)
            reply = read_reply(message, job.bins)
            if reply is not None:
                yield reply
        if waiting:
            time.sleep(POLL_S)
