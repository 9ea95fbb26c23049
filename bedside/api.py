"""Calls to a running site's APIs, for the command line."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from bedside.errors import BedsideError

TIMEOUT_S = 30


def call_api(
    method: str,
    url: str,
    token: str,
    body: dict[str, Any] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the JSON answer of one call; a list comes back under `items`.

    Raises:
        BedsideError: with the problem's own words, or that nothing answers.
    """
    if not url.startswith(("http://", "https://")):
        raise BedsideError("a URL starts with http:// or https://")
    request = urllib.request.Request(  # noqa: S310 the scheme was checked
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            **(headers or {}),
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 likewise
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise BedsideError(_detail(error)) from error
    except (urllib.error.URLError, TimeoutError) as error:
        raise BedsideError(f"nothing answers at {url}; is it running?") from error
    return {"items": answer} if isinstance(answer, list) else answer


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        problem = json.load(error)
    except ValueError:
        return f"the server answered with status {error.code}"
    return str(problem.get("detail") or problem.get("title") or error.code)
