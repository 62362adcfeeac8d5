"""The service keeps its contract: a short run of what `make fuzz` does at length."""

import re
import subprocess
import sys

from conftest import ROOT


def test_the_service_does_what_its_openapi_document_says() -> None:
    """No 5xx, no undocumented status, no answer off its schema, by all of schemathesis' checks."""
    command = [sys.executable, "-m", "scripts.fuzz", "--examples", "6"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stdout[-10_000:] + ran.stderr[-2_000:]
    generated = re.search(r"(\d+) generated", ran.stdout)
    assert generated
    assert int(generated[1]) > 150
