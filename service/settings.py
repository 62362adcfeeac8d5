"""Every setting of the service, with its default; each is read from the environment under its name."""

import ipaddress
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MEGA = 1_000_000
PREFIX = "FACE_ANON_"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def trusted_networks(listed: str) -> list[Network]:
    """Return the networks of a list such as `10.0.0.0/8, 192.0.2.7`; raises `ValueError` for any other."""
    return [ipaddress.ip_network(part.strip()) for part in listed.split(",") if part.strip()]


class Described(NamedTuple):
    """One setting, for people: its variable, its default in words, and what it is."""

    variable: str
    default: str
    description: str


class Settings(BaseSettings):
    """What an operator decides; `FACE_ANON_MAX_PIXELS=…` sets `max_pixels`, and so on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="The API keys, `name:key,other:key`; `sha256:HEX` may stand for a key. None here and "
        "none in the file: the service is open.",
    )
    api_keys_file: Path | None = Field(
        default=None, description="A file with more API keys, one `name:key` a line."
    )
    max_upload_bytes: int = Field(default=20 * MEGA, ge=1, description="The largest upload, in bytes.")
    max_uploading_bytes: int = Field(
        default=256 * MEGA,
        ge=1,
        description="How many bytes of uploads one process of the service holds at a time; no less than a "
        "largest upload takes.",
    )
    upload_seconds: float = Field(
        default=300, gt=0, allow_inf_nan=False, description="How long an upload may take to arrive."
    )
    max_pixels: int = Field(default=50 * MEGA, ge=1, description="The largest picture, in pixels.")
    max_faces: int = Field(default=32, ge=1, description="The most faces that are replaced in a photo.")
    max_queued_jobs: int = Field(default=1000, ge=1, description="How many jobs may wait for a worker.")
    jobs_per_key: int = Field(
        default=500, ge=0, description="How many unfinished jobs an API key may have; 0: as many as it likes."
    )
    requests_per_second: float = Field(
        default=0,
        ge=0,
        allow_inf_nan=False,
        description="How many requests an API key may send on average; where no key is set, an address. "
        "0: as many as it likes.",
    )
    request_burst: int = Field(
        default=50, ge=1, description="How many requests may come at once, where they are limited."
    )
    result_seconds: int = Field(default=3600, ge=1, description="How long a finished picture stays.")
    record_seconds: int = Field(
        default=3600, ge=1, description="How long a finished job stays; at least as long as its picture."
    )
    waiting_seconds: int = Field(default=6 * 3600, ge=1, description="How long an unfinished job stays.")
    start_seconds: int = Field(default=3600, ge=1, description="How long a job may wait for a worker.")
    run_seconds: int = Field(default=3600, ge=1, description="How long a job may run.")
    max_deaths: int = Field(
        default=2, ge=1, description="How many workers may die of a job before it fails as poisonous."
    )
    metrics_need_key: bool = Field(
        default=False, description="Whether `/metrics` wants an API key too; it names no caller and no job."
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses and networks of gateways, `10.0.0.0/8,192.0.2.7`, whose `X-Forwarded-For`, "
        "`-Proto` and `-Prefix` are believed. None: nobody's are.",
    )
    root_path: str = Field(
        default="",
        pattern=r"^((/[A-Za-z0-9._~-]+)+)?$",
        description="The path that a gateway puts before ours, `/faces`; all links begin with it.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may call from browsers, `https://a.example,https://b.example`. "
        "None: no page but our own.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="What is logged; DEBUG has the requests of probes too."
    )
    heartbeat_seconds: float = Field(
        default=15, gt=0, description="How often an event stream without a change says that it lives."
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, listed: str) -> str:
        trusted_networks(listed)
        return listed


def described_settings() -> list[Described]:
    """Return every setting, in order: what `--help` and the documentation are made of."""
    return [
        Described(f"{PREFIX}{name.upper()}", _in_words(field.get_default()), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _in_words(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    shown = default.get_secret_value() if isinstance(default, SecretStr) else default
    return "none" if shown in (None, "") else str(shown)
