"""The reference's table of fields is the table that the node goes by, and its settings are settings."""

import re
import tomllib
from pathlib import Path

from inference_node import NodeSettings
from inference_node.model_config import _ModelConfig
from inference_node.model_config_rules import RULES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "model-repository.md"


def test_the_table_says_what_becomes_of_every_field():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert lines == [f"| `{path}` | {rule.action} | {rule.note} |" for path, rule in RULES.items()]


def test_every_field_of_the_published_schema_has_a_rule():
    def paths(descriptor, prefix=""):
        for field in descriptor.fields:
            path = prefix + field.name
            message = field.message_type
            if path in RULES or message is None or message.GetOptions().map_entry:
                yield path
            else:
                yield from paths(message, f"{path}.")

    assert set(paths(_ModelConfig.DESCRIPTOR)) == set(RULES)


def test_the_settings_that_it_shows_are_the_defaults():
    (shown,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    settings = tomllib.loads(shown)["node"]
    del settings["repository"]
    assert NodeSettings(**settings) == NodeSettings()
