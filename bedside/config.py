"""`bedside.toml`: one file for all components; with none, everything runs embedded.

Environment variables override it: `BEDSIDE_GATEWAY__PORT=9000` is `port` under `[gateway]`. An unknown
key is an error, so that a misspelt setting cannot pass for a set one.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from audit.export.settings import ExportSettings
from audit.settings import AuditSettings, WitnessSettings
from bedside.errors import BedsideError
from console import ConsoleSettings
from coordinator import CoordinatorSettings
from inference_node import NodeSettings
from policies import DataClass, Purpose, RiskClass, Role
from secure_gateway import GatewaySettings

FILE: Final = "bedside.toml"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]

PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ModelEntry(BaseModel):
    """Who may use a model, for what, and which outputs suffice where no more is necessary."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: tuple[Role, ...]
    purposes: tuple[Purpose, ...]
    data_classes: tuple[DataClass, ...] = tuple(DataClass)
    risk: RiskClass = RiskClass.IV
    necessary_outputs: tuple[str, ...] = ()


class PolicyEntry(BaseModel):
    """Which policy packs the site decides by, and its own residency table.

    `residency` says where a jurisdiction's data may be processed; one without an entry is left to the
    other packs. `folder` holds the site's own packs, which `packs` names beside those that ship.
    `approvers` are Ed25519 public keys (raw, hexadecimal) by name: `threshold` different
    ones must sign a bundle. With none, the site's own key signs what this file says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path | None = None
    packs: tuple[Name, ...] = ("base", "hipaa", "gdpr", "residency")
    residency: dict[Jurisdiction, tuple[Jurisdiction, ...]] = Field(default={})
    approvers: dict[Name, PublicKey] = Field(default={})
    threshold: int = Field(default=2, ge=1)


class TelemetryEntry(BaseModel):
    """How much is written of what may be: docs/reference/telemetry.md lists it, for every level."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    log_level: Literal["debug", "info", "warning", "error"] = "info"


EXAMPLE_ACCESS: Final = ModelEntry(
    roles=(Role.CLINICIAN, Role.RESEARCHER, Role.APP, Role.DEVICE),
    purposes=(Purpose.TREAT, Purpose.ETREAT, Purpose.HRESCH),
)


class Config(BaseSettings):
    """Everything a site can be told."""

    model_config = SettingsConfigDict(
        env_prefix="BEDSIDE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    site: Name = "clinic"
    jurisdiction: Jurisdiction = "US-CA"
    data: Path = Path(".bedside")
    audit: AuditSettings = AuditSettings()
    export: ExportSettings = ExportSettings()
    gateway: GatewaySettings = GatewaySettings()
    node: NodeSettings | None = None
    coordinator: CoordinatorSettings = CoordinatorSettings()
    console: ConsoleSettings = ConsoleSettings()
    policy: PolicyEntry = PolicyEntry()
    witness: WitnessSettings | None = None
    telemetry: TelemetryEntry = TelemetryEntry()
    models: dict[Name, ModelEntry] = Field(default={"breast-cancer": EXAMPLE_ACCESS})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment over the file; no `.env`, which would be a second place to look."""
        del dotenv_settings, file_secret_settings
        toml = TomlConfigSettingsSource(settings_cls, settings_cls.model_config.get("toml_file"))
        return init_settings, env_settings, toml


def load_config(path: Path | None) -> Config:
    """Return the configuration in `path`, or in ./bedside.toml if there is one, or the defaults.

    Raises:
        BedsideError: naming the key, if something in it is unknown or not valid.
    """
    chosen = path if path is not None else Path(FILE)
    if path is not None and not path.is_file():
        raise BedsideError(f"there is no configuration file {path}")
    unknown = [
        name
        for name in os.environ
        if name.startswith("BEDSIDE_")
        and name.removeprefix("BEDSIDE_").partition("__")[0].lower() not in Config.model_fields
    ]
    if unknown:
        raise BedsideError(f"the environment variable {unknown[0]} names no setting")

    class Located(Config):
        model_config = SettingsConfigDict(toml_file=chosen if chosen.is_file() else None)

    try:
        return Located()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BedsideError(f"{chosen}: {key}: {first['msg']}") from error
    except tomllib.TOMLDecodeError as error:
        raise BedsideError(f"{chosen} is not valid TOML: {error}") from error
