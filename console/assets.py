"""The files that browsers fetch: held in memory, under names that change with their content."""

import hashlib
import mimetypes
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

STATIC: Final = Path(__file__).parent / "static"
FOREVER: Final = "public, max-age=31536000, immutable"
PREFIX: Final = "/static/"
DIGITS: Final = 12


class Assets:
    """Serves what is in `static`, and nothing else: a name is looked up, never opened as a path."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._addresses: dict[str, str] = {}
        self._files: dict[str, tuple[bytes, str]] = {}
        for path in sorted(folder.iterdir()):
            data = path.read_bytes()
            name = f"{hashlib.sha256(data).hexdigest()[:DIGITS]}-{path.name}"
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            self._files[name] = (data, kind)
            self._addresses[path.name] = f"{PREFIX}{name}"

    def address(self, name: str) -> str:
        """Return where a file is; KeyError for one that there is not."""
        return self._addresses[name]

    async def serve(self, request: Request) -> Response:
        """Answer with a file."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("There is no such file.\n", 404)
        data, kind = found
        return Response(data, media_type=kind, headers={"Cache-Control": FOREVER})
