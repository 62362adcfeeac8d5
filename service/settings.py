"""Every setting of the service, with its default; each is read from the environment under its name."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MEGA = 1_000_000


class Settings(BaseSettings):
    """What an operator decides; `FACE_ANON_MAX_PIXELS=…` sets `max_pixels`, and so on."""

    model_config = SettingsConfigDict(env_prefix="FACE_ANON_", frozen=True)

    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="The API keys, `name:key,other:key`; `sha256:HEX` may stand for a key. None here and "
        "none in the file: the service is open.",
    )
    api_keys_file: Path | None = Field(
        default=None, description="A file with more API keys, one `name:key` a line."
    )
    max_upload_bytes: int = Field(default=20 * MEGA, ge=1, description="The largest upload, in bytes.")
    max_pixels: int = Field(default=50 * MEGA, ge=1, description="The largest picture, in pixels.")
    max_faces: int = Field(default=32, ge=1, description="The most faces that are replaced in a photo.")
    max_queued_jobs: int = Field(default=1000, ge=1, description="How many jobs may wait for a worker.")
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
    heartbeat_seconds: float = Field(
        default=15, gt=0, description="How often an event stream without a change says that it lives."
    )
