"""The rest of the model code: checkpoints that do not load, wiring, stopping, parameters."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Reference
from PIL import Image
from safetensors.torch import load_file, save_file

from model.anonymize import anonymize_face, swap_face
from model.attention import Wiring
from model.checkpoint import Checkpoint, Precision, checkpoint_revision, load_checkpoint
from model.errors import CheckpointError, ParameterError, StoppedError
from model.samplers import scheduler_for

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy_of_tiny(tmp_path: Path) -> Path:
    """Return a writable copy of the tiny checkpoint."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(TINY, folder)
    return folder


def edit_json(file: Path, **changes: object) -> None:
    """Change fields of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_tensors(file: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a safetensors file."""
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize(
    "part",
    [
        "unet",
        "referencenet",
        "conditioning_referencenet",
        "vae",
        "image_encoder",
        "feature_extractor",
        "scheduler",
    ],
)
def test_a_missing_part_is_named(copy_of_tiny: Path, part: str) -> None:
    """Each of the seven parts is needed, and its absence is said in its name."""
    shutil.rmtree(copy_of_tiny / part)
    with pytest.raises(CheckpointError, match=rf"{part}: this part of the checkpoint is missing"):
        load_checkpoint(copy_of_tiny)


def test_missing_weights_are_named(copy_of_tiny: Path) -> None:
    """A part without its weights names the file."""
    (copy_of_tiny / "vae" / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=rf"vae/{WEIGHTS}: the file is missing"):
        load_checkpoint(copy_of_tiny)


def test_a_tensor_too_few_is_named(copy_of_tiny: Path) -> None:
    """A network is never filled up with random numbers."""
    edit_tensors(copy_of_tiny / "referencenet" / WEIGHTS, lambda tensors: tensors.pop("conv_in.weight"))
    with pytest.raises(CheckpointError, match=r"referencenet/.*1 missing tensor.*conv_in\.weight"):
        load_checkpoint(copy_of_tiny)


def test_a_tensor_too_many_is_named(copy_of_tiny: Path) -> None:
    """Weights that have no place are not dropped silently."""
    edit_tensors(copy_of_tiny / "unet" / WEIGHTS, lambda tensors: tensors.update(surplus=torch.zeros(1)))
    with pytest.raises(CheckpointError, match=r"unet/.*1 unexpected tensor.*surplus"):
        load_checkpoint(copy_of_tiny)


@pytest.mark.parametrize(
    ("part", "file", "tensor"),
    [
        ("unet", WEIGHTS, "conv_in.weight"),
        ("image_encoder", "model.safetensors", "vision_model.post_layernorm.weight"),
    ],
)
def test_a_wrong_shape_is_named(copy_of_tiny: Path, part: str, file: str, tensor: str) -> None:
    """A tensor of another shape is an error with file and reason."""
    edit_tensors(copy_of_tiny / part / file, lambda tensors: tensors.update({tensor: torch.zeros(3, 3)}))
    with pytest.raises(CheckpointError, match=rf"{part}/{file}: .*mismatched.*{tensor.split('.')[-2]}.*3, 3"):
        load_checkpoint(copy_of_tiny)


def test_broken_weights_are_named(copy_of_tiny: Path) -> None:
    """A file that breaks off names itself."""
    file = copy_of_tiny / "unet" / WEIGHTS
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=rf"unet/{WEIGHTS}: "):
        load_checkpoint(copy_of_tiny)


def test_a_part_of_another_class_is_named(copy_of_tiny: Path) -> None:
    """A VAE where a UNet belongs is an error, not a strange network."""
    edit_json(copy_of_tiny / "unet" / "config.json", _class_name="AutoencoderKL")
    with pytest.raises(CheckpointError, match=r"unet/config\.json: _class_name is 'AutoencoderKL'"):
        load_checkpoint(copy_of_tiny)


@pytest.mark.parametrize("prediction", ["epsilon", None])
def test_a_scheduler_that_does_not_predict_v_is_refused(copy_of_tiny: Path, prediction: str | None) -> None:
    """The -base variants of SD 2.1 are epsilon models: wrong here."""
    edit_json(copy_of_tiny / "scheduler" / "scheduler_config.json", prediction_type=prediction)
    with pytest.raises(CheckpointError, match=rf"scheduler_config\.json: prediction_type is {prediction!r}"):
        load_checkpoint(copy_of_tiny)


def test_parts_that_do_not_fit_together_are_named(copy_of_tiny: Path) -> None:
    """Two networks of different resolutions do not make a model."""
    edit_json(copy_of_tiny / "referencenet" / "config.json", sample_size=16)
    with pytest.raises(CheckpointError, match=r"referencenet/config\.json: sample_size is 16"):
        load_checkpoint(copy_of_tiny)


def test_a_property_there_is_not_is_named(copy_of_tiny: Path) -> None:
    """A misspelt property is an error, not a default."""
    (copy_of_tiny / "checkpoint.json").write_text('{"wirring": "one-to-one"}')
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: wirring"):
        load_checkpoint(copy_of_tiny)


def test_no_such_folder(tmp_path: Path) -> None:
    """A path that is not there is said."""
    with pytest.raises(CheckpointError, match="there is no such folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_resolution_comes_from_the_config(tiny: Checkpoint) -> None:
    """The UNet's sample size times the VAE's factor: 8 x 8."""
    assert tiny.resolution == 64


def test_the_revision_follows_the_bytes(copy_of_tiny: Path) -> None:
    """Without a given revision, one changed byte makes another; a given one is taken."""
    before = checkpoint_revision(copy_of_tiny)
    assert before == checkpoint_revision(copy_of_tiny)
    edit_json(copy_of_tiny / "vae" / "config.json", scaling_factor=0.5)
    assert checkpoint_revision(copy_of_tiny) != before
    (copy_of_tiny / "checkpoint.json").write_text('{"revision": "0966720"}')
    assert checkpoint_revision(copy_of_tiny) == "0966720"


def test_wiring_is_a_property_of_the_checkpoint(
    copy_of_tiny: Path, tiny: Checkpoint, reference: Reference
) -> None:
    """The published wiring is the default; one-to-one is another network."""
    assert tiny.properties.wiring is Wiring.FIRST_OF_BLOCK
    (copy_of_tiny / "checkpoint.json").write_text('{"wiring": "one-to-one"}')
    other = load_checkpoint(copy_of_tiny)
    run = {"seed": 1, "steps": 2, "guidance_scale": 1.0}
    published = np.asarray(anonymize_face(tiny, reference.driving, **run)).astype(int)
    one_to_one = np.asarray(anonymize_face(other, reference.driving, **run)).astype(int)
    assert np.abs(published - one_to_one).max() > 10


@pytest.mark.parametrize(
    ("layer", "read"),
    [
        ("down_blocks.1.attentions.1.transformer_blocks.0.attn1", "down_blocks.1.attentions.0"),
        ("up_blocks.3.attentions.2.transformer_blocks.0.attn1", "up_blocks.3.attentions.0"),
        ("mid_block.attentions.0.transformer_blocks.0.attn1", "mid_block.attentions.0"),
    ],
)
def test_first_of_block_reads_the_first_layer(layer: str, read: str) -> None:
    """Each layer of a block reads layer 0's state."""
    assert Wiring.FIRST_OF_BLOCK.read_by(layer) == f"{read}.transformer_blocks.0.attn1"
    assert Wiring.ONE_TO_ONE.read_by(layer) == layer


@pytest.mark.parametrize("precision", [Precision.BFLOAT16, Precision.FLOAT16])
def test_half_precisions_stay_near_float32(
    tiny: Checkpoint, reference: Reference, precision: Precision
) -> None:
    """One unguided step in 16 bits is the float32 picture within a few grey values."""
    half = load_checkpoint(TINY, precision=precision)
    assert half.unet.dtype == precision.dtype
    run = {"seed": 1, "steps": 1, "guidance_scale": 1.0}
    found = np.asarray(swap_face(half, reference.source, reference.driving, **run)).astype(int)
    exact = np.asarray(swap_face(tiny, reference.source, reference.driving, **run)).astype(int)
    assert np.abs(found - exact).mean() < 3


def test_progress_counts_each_step(tiny: Checkpoint, reference: Reference) -> None:
    """The callback sees (0, N) to (N, N)."""
    seen: list[tuple[int, int]] = []
    anonymize_face(
        tiny,
        reference.driving,
        seed=1,
        steps=3,
        on_step=lambda done, steps: seen.append((done, steps)),
    )
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("stop_at", [0, 1, 4])
def test_a_callback_stops_the_run_within_one_step(
    tiny: Checkpoint, reference: Reference, stop_at: int
) -> None:
    """What the callback raises ends the run; no further step is made."""
    seen: list[int] = []

    def on_step(done: int, _steps: int) -> None:
        seen.append(done)
        if done == stop_at:
            raise StoppedError("enough")

    with pytest.raises(StoppedError):
        anonymize_face(tiny, reference.driving, seed=1, steps=5, on_step=on_step)
    assert seen == list(range(stop_at + 1))


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"degree": 2.5}, "d is 2.5, it must be from 0 to 2"),
        ({"degree": float("nan")}, "d is nan"),
        ({"steps": 0}, "steps is 0, it must be from 1 to 1000"),
        ({"steps": 1001}, "steps is 1001"),
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
    ],
)
def test_a_parameter_out_of_range_is_named(
    tiny: Checkpoint, parameters: dict[str, float], sentence: str
) -> None:
    """Name, value and limit are in the sentence."""
    with pytest.raises(ParameterError, match=sentence):
        anonymize_face(tiny, Image.new("RGB", (64, 64)), **({"seed": 1} | parameters))  # type: ignore[arg-type]


def test_any_size_and_mode_of_picture_is_taken(tiny: Checkpoint) -> None:
    """A grey or odd-sized picture is resized and converted; the result has the model's resolution."""
    result = anonymize_face(tiny, Image.new("L", (33, 50), 100), seed=1, steps=1)
    assert (result.size, result.mode) == ((64, 64), "RGB")


def test_a_different_seed_gives_a_different_face(tiny: Checkpoint, reference: Reference) -> None:
    """The seed decides which new face."""
    one = anonymize_face(tiny, reference.driving, seed=1, steps=2)
    two = anonymize_face(tiny, reference.driving, seed=2, steps=2)
    assert one.tobytes() != two.tobytes()


@pytest.mark.parametrize("steps", [1, 3, 7, 333, 600, 999, 1000])
def test_any_number_of_steps_covers_the_schedule(tiny: Checkpoint, steps: int) -> None:
    """Timesteps fall evenly from the noisy end to the clean one, also where they do not divide 1000."""
    timesteps = scheduler_for(tiny.scheduler, steps).timesteps.tolist()
    assert len(timesteps) == steps
    assert timesteps[-1] in {0, 1}
    assert 1000 - 1000 / steps <= timesteps[0] <= 999
    distances = {earlier - later for earlier, later in itertools.pairwise(timesteps)}
    assert not distances or max(distances) - min(distances) <= 1
