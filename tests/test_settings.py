"""Every setting of the service is where an operator looks for it."""

import subprocess
from pathlib import Path

import pytest
from conftest import FACE_ANON, ROOT

from service.settings import Settings, described_settings


def test_the_documentation_has_every_setting() -> None:
    """One row each, in order, with default and meaning as the code has them, and no other row."""
    rows = [
        f"| `{setting.variable}` | {setting.default} | {setting.description} |"
        for setting in described_settings()
    ]
    document = (ROOT / "docs" / "settings.md").read_text()
    assert [line for line in document.splitlines() if line.startswith("| `FACE_ANON_")] == rows


@pytest.mark.parametrize("command", ["serve", "service"])
def test_the_help_has_every_setting(command: str) -> None:
    """With its default, whichever command runs the service."""
    shown = subprocess.run(
        [*FACE_ANON, command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    words = " ".join(shown.stdout.split())
    for setting in described_settings():
        assert f"{setting.variable} {setting.description} [default: {setting.default}]" in words


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name that the documentation gives."""
    monkeypatch.setenv("FACE_ANON_MAX_PIXELS", "4711")
    monkeypatch.setenv("FACE_ANON_API_KEYS_FILE", "/run/secrets/keys")
    settings = Settings()
    assert (settings.max_pixels, settings.api_keys_file) == (4711, Path("/run/secrets/keys"))
