"""`make demo`: starts everything, sends the sample photo through HTTP, and for a swap a rendered face with
it, saves what comes back and a before/after sheet under `demo/`, stops everything.
"""

import io
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw
from tqdm import tqdm

from model.renderer.parameters import sample_attributes, sample_identities
from model.renderer.picture import render

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "samples" / "astronaut.png"
OUT = ROOT / "demo"
TILE = 320
PORTRAIT_SEED = 12
PORTRAIT_SIZE = 512
CAPTION = 24
POLL_SECONDS = 0.2


def main() -> int:
    """Run the demo; returns the exit code."""
    OUT.mkdir(exist_ok=True)
    portrait = OUT / "portrait.png"
    rendered = render(sample_identities(PORTRAIT_SEED, 1), sample_attributes(PORTRAIT_SEED, 1), PORTRAIT_SIZE)
    Image.fromarray(rendered[0]).save(portrait)
    started = time.monotonic()
    serving = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve", "--port", "0"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    took: dict[str, float] = {}
    try:
        with httpx.Client(base_url=_address(serving), timeout=60) as api:
            took["starting"] = time.monotonic() - started
            anonymized = _run(
                api, "anonymize", {"image": PHOTO}, {"d": "1.25", "seed": "1"}, OUT / "anonymized.png", took
            )
            swapped = _run(
                api,
                "swap",
                {"source": portrait, "driving": PHOTO},
                {"seed": "1"},
                OUT / "swapped.png",
                took,
            )
    finally:
        stopping = time.monotonic()
        serving.terminate()
        serving.wait(60)
        took["stopping"] = time.monotonic() - stopping
    sheet = OUT / "before-after.png"
    _sheet(
        [
            ("photo", PHOTO),
            ("anonymized, d = 1.25", OUT / "anonymized.png"),
            ("source (rendered)", portrait),
            ("swapped into the photo", OUT / "swapped.png"),
        ]
    ).save(sheet)
    for warning in dict.fromkeys(anonymized["warnings"] + swapped["warnings"]):
        print(f"note: {warning}")
    for picture in ("anonymized.png", "swapped.png", sheet.name):
        print(f"wrote {(OUT / picture).relative_to(ROOT)}")
    print(", ".join(f"{part} {seconds:.1f} s" for part, seconds in took.items()))
    return serving.returncode


def _address(serving: subprocess.Popen[str]) -> str:
    assert serving.stderr  # noqa: S101  it was opened as a pipe
    seen = []
    for line in serving.stderr:
        seen.append(line)
        if found := re.search(r"ready at (http://\S+)", line):
            return found.group(1)
    raise SystemExit("the service did not start:\n" + "".join(seen))


def _run(
    api: httpx.Client,
    endpoint: str,
    files: dict[str, Path],
    fields: dict[str, str],
    out: Path,
    took: dict[str, float],
) -> dict[str, Any]:
    """Send one job, show its progress, save its picture and return the finished job."""
    started = time.monotonic()
    uploads = {name: file.read_bytes() for name, file in files.items()}
    answer = api.post(f"/{endpoint}", files=uploads, data=fields)
    answer.raise_for_status()
    job: dict[str, Any] = answer.json()
    with tqdm(
        total=job["parameters"]["steps"], unit="step", desc=f"POST /{endpoint}", file=sys.stdout
    ) as bar:
        while job["status"] in {"queued", "running"}:
            time.sleep(POLL_SECONDS)
            job = api.get(job["links"]["self"]).json()
            bar.update((job["progress"] or {"step": 0})["step"] - bar.n)
    if job["status"] != "succeeded":
        raise SystemExit(f"the job {job['status']}: {job['error']}")
    picture = api.get(job["result"]["url"])
    picture.raise_for_status()
    out.write_bytes(picture.content)
    took[endpoint] = time.monotonic() - started
    return job


def _sheet(tiles: list[tuple[str, Path]]) -> Image.Image:
    sheet = Image.new("RGB", (TILE * len(tiles), TILE + CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (caption, file) in enumerate(tiles):
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            tile = image.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(tile, (index * TILE, CAPTION))
        draw.text((index * TILE + 6, 6), caption, fill="black")
    return sheet


if __name__ == "__main__":
    sys.exit(main())
