"""A hospital's settings: one TOML file, then the environment, then flags; the later wins, an unknown key is refused."""

import tomllib
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import ConfigDict, Field, PositiveInt, ValidationError, field_validator
from pydantic.dataclasses import dataclass
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from medpipe.cohort.eligibility import CohortSettings
from medpipe.errors import UsageError
from medpipe.features.images import ImageSettings
from medpipe.features.ratings import RatingSettings
from medpipe.features.sequences import SequenceSettings
from medpipe.quality.rules import QualitySettings
from medpipe.quality.thresholds import Threshold
from medpipe.recommend.safety import SafetySettings
from medpipe.recommend.settings import (
    BlendSettings,
    EaseSettings,
    ExactAlsSettings,
    RecommendSettings,
    SimilaritySettings,
)
from medpipe.score.settings import ScoreSettings
from medpipe.train.settings import GanSettings, TrainSettings

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=STRICT)
class Hospital:
    """timezone: IANA name; dates of deliveries and as_of are that clock's."""

    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("expected an IANA time zone, e.g. Europe/Vienna")
        return ZoneInfo(value).key


@dataclass(frozen=True, config=STRICT)
class Privacy:
    """Pseudonyms, and what leaves the hospital.

    Attributes:
        key: where the key is, never the key itself: `file:PATH` (mode 0600) or `env:NAME`.
        patient_namespace: sources that share it give one patient one pseudonym.
        mode: safe_harbor publishes years; limited publishes dates moved by up to max_shift_days for each patient, which
            an expert must have found fit (45 CFR 164.514(b)(1)).
        min_group_size: patients whom fewer share sex, birth year, age, state and ZIP3 with are published without these.
    """

    key: str = "env:MEDPIPE_PSEUDONYM_KEY"
    patient_namespace: str = "patient"
    mode: Literal["safe_harbor", "limited"] = "safe_harbor"
    max_shift_days: PositiveInt = 50
    min_group_size: PositiveInt = 1


def _strict(part: type) -> type:
    """A room's settings as a pydantic dataclass that refuses unknown keys; the rooms need not know pydantic."""
    return dataclass(part, frozen=True, config=STRICT)


class Settings(BaseSettings):
    """Everything a run can be told; each part is a frozen dataclass beside the code that uses it.

    Environment variables are MEDPIPE_ and the path, e.g. MEDPIPE_COHORT__TIME_AT_RISK_DAYS=60.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="MEDPIPE_", env_nested_delimiter="__")

    lake: str | None = None
    phi: str | None = None
    published: str | None = None
    mappings: str | None = None
    vocabulary: str | None = None
    hospital: Hospital = Hospital()
    privacy: Privacy = Privacy()
    thresholds: dict[str, _strict(Threshold)] = Field(default_factory=dict)
    quality: _strict(QualitySettings) = Field(default_factory=dict)
    cohort: _strict(CohortSettings) = Field(default_factory=dict)
    sequences: _strict(SequenceSettings) = Field(default_factory=dict)
    images: _strict(ImageSettings) = Field(default_factory=dict)
    train: _strict(TrainSettings) = Field(default_factory=dict)
    gan: _strict(GanSettings) = Field(default_factory=dict)
    score: _strict(ScoreSettings) = Field(default_factory=dict)
    rating: _strict(RatingSettings) = Field(default_factory=dict)
    recommend: _strict(RecommendSettings) = Field(default_factory=dict)
    als: _strict(ExactAlsSettings) = Field(default_factory=dict)
    ease: _strict(EaseSettings) = Field(default_factory=dict)
    blend: _strict(BlendSettings) = Field(default_factory=dict)
    safety: _strict(SafetySettings) = Field(default_factory=dict)
    similarity: _strict(SimilaritySettings) = Field(default_factory=dict)
    spark: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def part(self, names: tuple[str, ...]) -> dict:
        """The named parts as plain values, for a step's identity."""
        return self.model_dump(mode="json", include=set(names))

    @property
    def phi_root(self) -> str:
        """Root of what identifies patients; beside the lake unless it is given."""
        return self.phi or f"{self.lake.rstrip('/')}-phi"

    @property
    def published_root(self) -> str:
        """Root of what people outside may read; beside the lake unless it is given."""
        return self.published or f"{self.lake.rstrip('/')}-published"


def load(config: Path | None, flags: dict) -> Settings:
    """Settings from a TOML file, the environment and flags (nested dicts).

    Raises:
        UsageError: NO_CONFIG, BAD_CONFIG, BAD_SETTING; all wrong keys in one message, their values not repeated.
    """
    if config is not None and not config.is_file():
        raise UsageError("NO_CONFIG", f"--config {config} is not a file")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        return FromFile(**flags)
    except tomllib.TOMLDecodeError as failure:
        raise UsageError("BAD_CONFIG", f"--config {config} is not TOML: {failure}") from None
    except ValidationError as failure:
        wrong = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in failure.errors()]
        raise UsageError("BAD_SETTING", "; ".join(sorted(wrong))) from None
