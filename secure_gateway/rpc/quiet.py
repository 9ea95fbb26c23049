"""Keeps what grpc logs free of what callers sent.

Its Python side quotes metadata that it cannot decode, names of methods and messages of exceptions; its
C core writes to standard error on its own. Of the first only the kind of error is kept, the second is
silenced unless somebody asks for it.
"""

import logging
import os
from typing import Final

_LOGGERS: Final = ("grpc", "grpc._cython.cygrpc", "grpc._common", "grpc.aio")


class _Withheld(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "a problem"
        record.msg = "grpc met %s; its words are withheld, as they may quote what was sent"
        record.args = (error,)
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def withhold_quotes() -> None:
    """Have grpc log kinds of errors only; call it before the first server is made."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(present, _Withheld) for present in logger.filters):
            logger.addFilter(_Withheld())
