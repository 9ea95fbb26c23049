"""Every log message that may be written, with the kind of each of its parts. Nothing else is.

A message is known by the logger that it comes from and its text before anything is put into it. Its
parts are let through by their type, never by what they look like: see `Kind`. A test holds this list
against the code, and docs/reference/telemetry.md against this list.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final


class Kind(Enum):
    """What a part of a message must be."""

    NUMBER = auto()
    """An int or a float."""
    WORD = auto()
    """A member of an enumeration."""
    NAME = auto()
    """A name that the site gave: of a log, placement, model (`name` or `name/version`) or witness."""
    RECORD = auto()
    """A record's place, `<log>#<number>`, in a log of the site."""
    TYPE = auto()
    """A class, of an error; its name is written."""
    CODE = auto()
    """A code object: the name of the function is written."""
    ERROR = auto()
    """An error, as `bedside.telemetry.describe` says it: never its text, unless it may speak."""


_UNFORESEEN: Final = ("unforeseen %s at %s:%s", (Kind.TYPE, Kind.CODE, Kind.NUMBER))
_NOT_REFRESHED: Final = ("policies not refreshed: %s", (Kind.TYPE,))
_STORE_FAILED: Final = ("the database of work: %s", (Kind.ERROR,))

MESSAGES: Final[Mapping[str, Mapping[str, tuple[Kind, ...]]]] = {
    "audit.cosigning": {"the witness %s did not cosign: %s": (Kind.NAME, Kind.WORD)},
    "audit.export.fields": {
        "%d fields of a record are on no list and were not exported": (Kind.NUMBER,)
    },
    "audit.follow": {
        "record %d of %s waits for %.0f s: %s": (Kind.NUMBER, Kind.NAME, Kind.NUMBER, Kind.ERROR),
        "records %d to %d of %s were pruned before they were handed on": (
            Kind.NUMBER,
            Kind.NUMBER,
            Kind.NAME,
        ),
    },
    "audit.index.keep": {"the search index is not kept up: %s": (Kind.ERROR,)},
    "audit.retention.watch": {
        "%s is not pruned: %s": (Kind.NAME, Kind.ERROR),
        "records %d to %d of %s were pruned [record %s]": (
            Kind.NUMBER,
            Kind.NUMBER,
            Kind.NAME,
            Kind.RECORD,
        ),
    },
    "audit.witness.serve": {"a checkpoint was not cosigned: %s": (Kind.ERROR,)},
    "audit.witnessed": {"a cosigned checkpoint could not be published: %s": (Kind.ERROR,)},
    "bedside.accept": {
        "a connection was lost while it was opened: %s": (Kind.ERROR,),
        "no connection is accepted for %.0f s: %s": (Kind.NUMBER, Kind.ERROR),
    },
    "bedside.serving": {"the event loop met %s outside any request": (Kind.TYPE,)},
    "bedside.telemetry": {
        "withheld so far: %d messages, %d parts of messages, %d lines of output, %d samples": (
            Kind.NUMBER,
            Kind.NUMBER,
            Kind.NUMBER,
            Kind.NUMBER,
        ),
        "the process ends: %s": (Kind.ERROR,),
        "a thread ended: %s": (Kind.ERROR,),
        "an error that nobody could be told of: %s": (Kind.ERROR,),
    },
    "console.app": {"unforeseen %s": (Kind.TYPE,)},
    "console.tasks": {"a task failed: %s": (Kind.TYPE,)},
    "coordinator.policy.in_force": dict([_NOT_REFRESHED]),
    "coordinator.reports.shelf": {"an order for a report is not read: %s": (Kind.TYPE,)},
    "inference_node.batcher": {"running a batch raised %s": (Kind.TYPE,)},
    "inference_node.loading": {
        "a model could not be warmed up on zeros; model_warmup gives it a better sample": ()
    },
    "inference_node.repository": {"model %s is not served: %s": (Kind.NAME, Kind.ERROR)},
    "policies.keeper": {
        "policy bundle refused: %s": (Kind.ERROR,),
        "policy bundle version %d is in force": (Kind.NUMBER,),
    },
    "secure_gateway.cache.redis": {
        "the cache's server failed (%s); it is left alone for %.1f s": (Kind.TYPE, Kind.NUMBER)
    },
    "secure_gateway.consent.believe": {
        "%s; requests are taken to have no consent": (Kind.ERROR,),
    },
    "secure_gateway.errors": dict([_UNFORESEEN]),
    "secure_gateway.metrics": {"how far the export got is not known: %s": (Kind.ERROR,)},
    "secure_gateway.nodes": {"%s: model %s is left out: %s": (Kind.NAME, Kind.NAME, Kind.ERROR)},
    "secure_gateway.policy_feed": dict([_NOT_REFRESHED]),
    "secure_gateway.record": {
        "the record of a request whose caller left is lost: %s": (Kind.ERROR,),
    },
    "secure_gateway.registry_poll": {"device registry not refreshed: %s": (Kind.TYPE,)},
    "secure_gateway.rpc.server": {"a gRPC listener broke off; another one takes its place": ()},
    "secure_gateway.shadow": {
        "shadow candidate refused: %s": (Kind.ERROR,),
        "shadow candidate let go after %d failures: %s": (Kind.NUMBER, Kind.TYPE),
    },
    "secure_gateway.work.runner": {
        **dict([_STORE_FAILED]),
        "unforeseen %s while work was run": (Kind.TYPE,),
    },
    "uvicorn.error": {
        **dict([_UNFORESEEN]),
        # Constant texts of uvicorn's own.
        "Invalid HTTP request received.": (),
        "Cancel %s running task(s), timeout graceful shutdown exceeded": (Kind.NUMBER,),
    },
}
