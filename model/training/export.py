"""Writes a run's averaged weights as a checkpoint: the seven parts and `checkpoint.json`, for
`model.checkpoint`.
"""

import shutil
from pathlib import Path

import torch

from model.checkpoint import PROPERTIES_FILE, Defaults, Precision, Properties
from model.training.loop import Run
from model.training.parts import Folders


def export(
    run: Run, folder: Path, *, precision: Precision, demonstration: bool, defaults: Defaults | None = None
) -> None:
    """Write the checkpoint of a resumed run into `folder`, whose parts are replaced."""
    folders = Folders.of(run.config.start)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vae", "image_encoder", "feature_extractor", "scheduler"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(getattr(folders, name), folder / name)
    networks = run.averaged()
    for name in ("unet", "referencenet", "conditioning_referencenet"):
        network = getattr(networks, name)
        shutil.rmtree(folder / name, ignore_errors=True)
        network.to(precision.dtype, memory_format=torch.contiguous_format).save_pretrained(folder / name)
    properties = Properties(
        name=run.config.name,
        wiring=run.config.wiring,
        positions=run.config.positions,
        demonstration=demonstration,
        defaults=defaults or Defaults(),
    )
    (folder / PROPERTIES_FILE).write_text(properties.model_dump_json(indent=2, exclude_defaults=True) + "\n")
