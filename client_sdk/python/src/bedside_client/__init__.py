"""The Bedside SDK: models run on the device when the rules say so, and nobody has to think about it."""

from bedside_client.client import Client, Placement, Prediction, SyncClient
from bedside_client.data import DataProvider, FunctionData, SqliteData
from bedside_client.enrolment import enroll
from bedside_client.errors import (
    BedsideClientError,
    EnrolmentFailed,
    ModelFailed,
    PackageRejected,
    Refused,
    RequestInvalid,
    RuntimeMissing,
    StateError,
    TokenRejected,
    Unavailable,
)
from bedside_client.state import DeviceState, Enrolment, Trust

__all__ = [
    "BedsideClientError",
    "Client",
    "DataProvider",
    "DeviceState",
    "Enrolment",
    "EnrolmentFailed",
    "FunctionData",
    "ModelFailed",
    "PackageRejected",
    "Placement",
    "Prediction",
    "Refused",
    "RequestInvalid",
    "RuntimeMissing",
    "SqliteData",
    "StateError",
    "SyncClient",
    "TokenRejected",
    "Trust",
    "Unavailable",
    "enroll",
]
