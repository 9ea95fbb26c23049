"""One HTML file that verifies reports in a browser, with nothing beside it and no network.

    page.html, page.css   what it shows, and how
    proofs.js             the published formats
    report.js             what makes a file a report
    page.js               keys in, verdict out

The page states the hashes of its own script and style, and lets nothing else run, load or connect.
"""

import base64
import hashlib
import json
from importlib.resources import files
from typing import Final

from audit.reports.kinds import KINDS

_SCRIPTS: Final = ("proofs.js", "report.js", "page.js")


def verifier_page() -> str:
    """Return the page; the same version of Bedside gives the same bytes everywhere."""
    script = "\n".join(_part(name) for name in _SCRIPTS)
    script = script.replace('"@@KINDS@@"', json.dumps(list(KINDS)))
    style = _part("page.css")
    page = _part("page.html")
    for mark, text in (
        ("@@SCRIPT-HASH@@", _csp_hash(script)),
        ("@@STYLE-HASH@@", _csp_hash(style)),
        ("@@STYLE@@", style),
        ("@@SCRIPT@@", script),
    ):
        page = page.replace(mark, text)
    return page


def _part(name: str) -> str:
    return files(__name__).joinpath(name).read_text()


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
