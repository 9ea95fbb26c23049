"""A plain gRPC caller: any method, any message, and everything that comes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np

from inference_node.schema import SERVICE, message_class

Metadata = Sequence[tuple[str, str | bytes]]
TIMEOUT_S = 20

ModelInferRequest = message_class("ModelInferRequest")
ModelStreamInferResponse = message_class("ModelStreamInferResponse")


@dataclass(frozen=True)
class Answer:
    code: grpc.StatusCode
    details: str
    message: Any
    trailing: dict[str, str | bytes]


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


def row(values: Sequence[float] = (0.1, 0.2, 0.3), model: str = "breast-cancer", **fields: Any) -> Any:
    """A request for the linear model, with raw contents."""
    request = ModelInferRequest(model_name=model, **fields)
    request.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    request.raw_input_contents.append(np.array(values, np.float32).tobytes())
    return request


class Caller:
    def __init__(self, address: str, token: str | None = None) -> None:
        self._channel = grpc.insecure_channel(address)
        self._metadata = () if token is None else (bearer(token),)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(
        self,
        method: str,
        message: Any = None,
        metadata: Metadata = (),
        *,
        timeout_s: float = TIMEOUT_S,
        compression: grpc.Compression | None = None,
    ) -> Answer:
        """Call a method of the inference service with a message, the name of one, or bytes."""
        if message is None:
            message = message_class(f"{method}Request")()
        body = message if isinstance(message, bytes) else message.SerializeToString()
        path = method if method.startswith("/") else f"/{SERVICE}/{method}"
        parse = message_class(f"{method}Response").FromString if not method.startswith("/") else None
        stub = self._channel.unary_unary(path, response_deserializer=parse)
        try:
            answer, call = stub.with_call(
                body,
                metadata=(*self._metadata, *metadata),
                timeout=timeout_s,
                compression=compression,
            )
        except grpc.RpcError as error:
            return Answer(error.code(), error.details(), None, dict(error.trailing_metadata() or ()))
        return Answer(grpc.StatusCode.OK, "", answer, dict(call.trailing_metadata() or ()))

    def infer(self, message: Any = None, metadata: Metadata = (), **options: Any) -> Answer:
        return self.call("ModelInfer", row() if message is None else message, metadata, **options)

    def stream(self, messages: Sequence[Any], metadata: Metadata = ()) -> list[Any]:
        """Send messages on one stream and return the responses to all of them; raises grpc.RpcError."""
        stub = self._channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer", response_deserializer=ModelStreamInferResponse.FromString
        )
        bodies = [m if isinstance(m, bytes) else m.SerializeToString() for m in messages]
        return list(stub(iter(bodies), metadata=(*self._metadata, *metadata), timeout=TIMEOUT_S))
