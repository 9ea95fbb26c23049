"""No memory of a process on a disk: what a core dump holds is everything that was ever sent."""

import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """Let neither this process nor its children leave a core dump.

    On Linux a dump that goes to a program (`kernel.core_pattern` with `|`) ignores a limit of 0; one of
    1 byte stops that too (core(5), do_coredump). The limit is inherited; a process that is not dumpable
    cannot be traced by others of its user either, which ends with the next exec.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if hard == resource.RLIM_INFINITY else min(hard, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the process cannot be kept from dumping its memory")
