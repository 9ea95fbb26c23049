"""The version that the gateway tells its callers."""

from importlib.metadata import version
from typing import Final

VERSION: Final = version("bedside")
