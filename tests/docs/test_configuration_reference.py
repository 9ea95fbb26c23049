"""The reference of the configuration shows every setting that there is, and no other."""

import re
import tomllib
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from bedside.config import Config

PAGE = Path(__file__).parents[2] / "docs/reference/configuration.md"
# What the page sets to something other than the default, to show what it looks like.
EXAMPLES = {
    "gateway.nodes", "gateway.limits.roles", "coordinator.url", "policy.residency", "models",
    "audit.witnesses.members", "witness.name",
}  # fmt: skip


def shown():
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    examples = set(re.findall(r"^# (\w+) = ", block, re.MULTILINE))
    return tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", block, flags=re.MULTILINE)), examples


def models_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def settings(model, prefix=""):
    """Yield each setting of `model` under its dotted name, with its default."""
    for name, field in model.model_fields.items():
        inner = next(models_in(field.annotation), None)
        if inner is None:
            yield f"{prefix}{name}", field.get_default(call_default_factory=True)
        else:
            yield from settings(inner, f"{prefix}{name}.")


def flat(document, prefix=""):
    for name, value in document.items():
        path = f"{prefix}{name}"
        first = value[0] if isinstance(value, list) and value else value
        if path in ("gateway.limits.roles", "models"):
            # Keyed by a role or a model.
            yield from flat(next(iter(first.values())), f"{path}.")
        elif isinstance(first, dict) and first and path != "policy.residency":
            yield from flat(first, f"{path}.")
        else:
            yield path, value


def test_every_setting_is_shown_and_no_other():
    document, _ = shown()
    assert {path for path, _ in flat(document)} == {path for path, _ in settings(Config)}


def test_what_is_shown_is_valid_and_otherwise_the_default():
    document, examples = shown()
    Config(**document)
    defaults = dict(settings(Config))
    for path, value in flat(document):
        if path.rpartition(".")[2] in examples or any(path.startswith(name) for name in EXAMPLES):
            continue
        default = defaults[path]
        expected = list(default) if isinstance(default, tuple) else default
        assert value == (str(expected) if isinstance(expected, Path) else expected), path
