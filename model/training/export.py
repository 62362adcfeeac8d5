"""Writes a run's averaged weights as a checkpoint: the seven parts and `checkpoint.json`, for
`model.checkpoint`.
"""

import shutil
from pathlib import Path

import torch

from model.checkpoint import PROPERTIES_FILE, Defaults, Precision, Properties
from model.training.config import TrainingConfig
from model.training.loop import averaged_networks
from model.training.parts import Folders


def export(
    config: TrainingConfig,
    run: Path,
    folder: Path,
    *,
    precision: Precision,
    demonstration: bool,
    defaults: Defaults,
) -> None:
    """Write the checkpoint of the run saved in the folder `run` into `folder`, whose parts are replaced.

    Raises TrainingError where no run is saved there.
    """
    networks = averaged_networks(config, run)
    folders = Folders.of(config.start)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vae", "image_encoder", "feature_extractor", "scheduler"):
        part: Path = getattr(folders, name)
        if part.resolve() != (folder / name).resolve():  # a run may be exported over what it started from
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.copytree(part, folder / name)
    for name in ("unet", "referencenet", "conditioning_referencenet"):
        network = getattr(networks, name)
        shutil.rmtree(folder / name, ignore_errors=True)
        # diffusers' own `to` warns that a network should rather be loaded so.
        torch.nn.Module.to(network, precision.dtype, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        network.register_to_config(_name_or_path="")  # where it was loaded from is nobody's business
        network.save_pretrained(folder / name)
    properties = Properties(
        name=config.name,
        wiring=config.wiring,
        positions=config.positions,
        demonstration=demonstration,
        defaults=defaults,
    )
    (folder / PROPERTIES_FILE).write_text(properties.model_dump_json(indent=2, exclude_defaults=True) + "\n")
