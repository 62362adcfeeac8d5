"""Triplets of pictures in files, listed as the authors list theirs: JSON lines that name three pictures.

A line is `{"source_image": ..., "conditioning_image": ..., "ground_truth": ...}`, paths as seen from the
list's folder. The curriculum's stages follow each other; a reversed list (the truth swapped, the driving
picture real) is a file of its own in an early stage.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Generator

from model.errors import TrainingError
from model.training.config import Listed
from model.training.noising import Triplets
from model.training.parts import Parts


class Line(BaseModel):
    """One line of a list; other fields are let be."""

    model_config = ConfigDict(frozen=True)

    source_image: Path
    conditioning_image: Path
    ground_truth: Path


@dataclass(frozen=True)
class Until:
    """The triplets of one stage, and the step it ends before; None is never."""

    step: int | None
    lines: tuple[Line, ...]


class ListedSource:
    """Draws lines of the stage that a step is in, and encodes their pictures."""

    def __init__(self, data: Listed, parts: Parts) -> None:
        """Read all lists. Raises TrainingError where one is missing, empty or malformed, or names no file."""
        self.data, self.parts = data, parts
        self.stages = [
            Until(stage.until, tuple(line for file in stage.files for line in read_lines(file)))
            for stage in data.stages
        ]
        ends = [stage.step for stage in self.stages]
        if ends[-1] is not None or any(end is None for end in ends[:-1]):
            raise TrainingError("data.stages: the last stage, and no other, must have no end")
        self.kept = read_lines(data.held_out)

    def triplets(self, step: int, generator: Generator) -> Triplets:
        """Return encoded triplets drawn from the stage of `step`, some with one picture for all three."""
        lines = next(stage.lines for stage in self.stages if stage.step is None or step < stage.step)
        count = self.data.triplets_per_step
        drawn = [lines[int(index)] for index in torch.randint(len(lines), (count,), generator=generator)]
        same = torch.rand(count, generator=generator) < self.data.same_picture_share
        return self._encode(
            [
                Line(
                    source_image=line.ground_truth,
                    conditioning_image=line.ground_truth,
                    ground_truth=line.ground_truth,
                )
                if alone
                else line
                for line, alone in zip(drawn, same.tolist(), strict=True)
            ],
            generator,
        )

    def held_out(self, index: int) -> Triplets:
        """Return a few held-out triplets, going through them all with the index."""
        count = min(len(self.kept), max(2, self.data.triplets_per_step))
        chosen = [self.kept[(index * count + offset) % len(self.kept)] for offset in range(count)]
        return self._encode(chosen, Generator().manual_seed(index))

    def _encode(self, lines: list[Line], generator: Generator) -> Triplets:
        side = self.data.pixels
        (source, source_tokens), (driving, driving_tokens), (truth, _) = (
            self.parts.encode(np.stack([picture(getattr(line, part), side) for line in lines]), generator)
            for part in ("source_image", "conditioning_image", "ground_truth")
        )
        rows = torch.arange(len(lines))
        return Triplets(
            source_latents=source.cpu(),
            source_tokens=source_tokens.cpu(),
            driving_latents=driving.cpu(),
            driving_tokens=driving_tokens.cpu(),
            source_row=rows,
            driving_row=rows,
            truth=truth.cpu(),
            same_picture=torch.tensor([line.source_image == line.conditioning_image for line in lines]),
            emphasis=torch.ones(len(lines), *truth.shape[2:]),
        )


def read_lines(file: Path) -> tuple[Line, ...]:
    """Return a list's lines, their paths joined to its folder.

    Raises TrainingError, naming file and line, where it is missing, empty or malformed, or names no file.
    """
    try:
        texts = file.read_text().splitlines()
    except OSError as error:
        raise TrainingError(f"{file}: {error.strerror}") from error
    lines = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            named = Line.model_validate(json.loads(text))
        except (ValueError, ValidationError) as error:
            raise TrainingError(f"{file}: line {number} is not a triplet of file names") from error
        line = Line(**{name: file.parent / path for name, path in named})
        for _, path in line:
            if not path.is_file():
                raise TrainingError(f"{file}: line {number}: {path} is not there")
        lines.append(line)
    if not lines:
        raise TrainingError(f"{file}: there is no line in it")
    return tuple(lines)


def picture(file: Path, side: int) -> NDArray[np.uint8]:
    """Return a face (side, side, 3), resized (Lanczos). Raises TrainingError where it is unreadable."""
    try:
        with Image.open(file) as opened:
            resized = opened.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as error:
        raise TrainingError(f"{file}: not a picture that can be read") from error
    return np.asarray(resized)
