"""Training: it learns, it resumes exactly, it counts and freezes, and what it writes is a checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

import model.training
from model.attention import Positions, Wiring
from model.checkpoint import Defaults, Precision, load_checkpoint
from model.conditioning import FaceInputs, condition, encode_images, sample_posterior
from model.errors import TrainingError
from model.random_checkpoint import SCHEDULE, SMALL
from model.sampling import predict
from model.training.codec import autoencoder, main_components
from model.training.config import TrainingConfig, read_config
from model.training.export import export
from model.training.listed import read_lines
from model.training.loop import Run, averaged_networks
from model.training.networks import Examples
from model.training.noising import Question, Timesteps, Triplets, noised, v_loss
from model.training.optimizers import orthogonalized
from model.training.pool import Pool
from model.training.portrait_parts import make_parts
from model.training.widening import channels_in

GROUPS, SIDE, PIXELS = 20, 3, 32
UNET = {
    "sample_size": 4,
    "in_channels": 16,
    "out_channels": 16,
    "block_out_channels": [32],
    "down_block_types": ["CrossAttnDownBlock2D"],
    "mid_block_type": None,
    "up_block_types": ["CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
    "use_linear_projection": True,
}
# Training is the only user of these libraries' parts that warn.
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a pool of small portraits, and parts that encode them."""
    folder = tmp_path_factory.mktemp("training")
    Pool(folder / "pool", 1, SIDE, PIXELS).render(GROUPS, 1)
    Pool(folder / "pool", 2, SIDE, PIXELS).render(GROUPS, 1)
    encoder = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    weights = make_parts(
        folder / "parts",
        Pool(folder / "pool", 1, SIDE, PIXELS),
        groups=GROUPS,
        steps=5,
        seed=1,
        channels=16,
        encoder=encoder,
    )
    (folder / "weights.json").write_text(json.dumps(weights))
    return folder


def config_of(world: Path, groups: int = 2, **changed: object) -> TrainingConfig:
    """Return the config of a tiny run on rendered portraits, some of its fields changed."""
    config = {
        "name": "tiny",
        "seed": 3,
        "steps": 6,
        "data": {
            "kind": "rendered",
            "pool": str(world / "pool"),
            "side": SIDE,
            "pixels": PIXELS,
            "groups": groups,
            "held_out_groups": groups,
            "groups_per_step": 2,
        },
        "start": {"kind": "config", "parts": str(world / "parts"), "unet": UNET},
        "trained": "everything",
        "wiring": "one-to-one",
        "positions": "sinusoidal",
        "terminal": 0.25,
        "latent_weights": json.loads((world / "weights.json").read_text()),
        "optimization": {
            "rate": 2e-3,
            "weight_decay": 0,
            "muon_rate": 0.02,
            "warmup_steps": 10,
            "averaging": 0.98,
        },
        "reports": {"log": 1, "validate_every": 1000, "save": 1000},
    }
    return TrainingConfig.model_validate(config | changed)


def log_of(folder: Path) -> list[dict[str, float]]:
    """Return what a run logged."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    """Return a copy of a run's weights."""
    return {name: value.detach().clone() for name, value in run.networks.state_dict().items()}


def question_of(run: Run, triplets: Triplets, *, draws: int, unconditional: float) -> Question:
    """Return what a run would ask of triplets, always the same."""
    generator = torch.Generator().manual_seed(1)
    return noised(
        triplets, run.alphas, run.timesteps, draws=draws, unconditional=unconditional, generator=generator
    )


def exported(
    config: TrainingConfig, run: Path, folder: Path | None = None, *, defaults: Defaults | None = None
) -> Path:
    """Write the checkpoint of a run, beside it where no folder is given; return its folder."""
    folder = folder or run.parent / "checkpoint"
    export(
        config,
        run,
        folder,
        precision=Precision.FLOAT32,
        demonstration=True,
        defaults=defaults or Defaults(),
    )
    return folder


def test_a_run_learns_the_task(world: Path, tmp_path: Path) -> None:
    """From a fixed seed, the loss on identities never trained on falls from 1.0 to below 0.75, and results
    are nearer to the truth than the driving picture is.
    """
    config = config_of(world, GROUPS, steps=300, reports={"log": 10, "validate_every": 300, "save": 1000})
    run = Run(config, tmp_path)
    before = run.validate()
    run.train(bar=False)
    after = log_of(tmp_path)[-1]
    assert before["held_out_loss_all_noise"] == pytest.approx(1.0, abs=0.2)
    assert after["held_out_loss_all_noise"] < 0.75
    assert after["held_out_psnr_1_step"] > after["held_out_psnr_driving"]
    assert after["hours"] > 0
    assert Image.open(tmp_path / "pictures" / "0000300.png").width >= PIXELS
    assert list((tmp_path / "events").glob("events*"))


def test_a_cut_run_resumed_equals_the_uncut_one(world: Path, tmp_path: Path) -> None:
    """Weights, averages and optimizers of a run cut after 3 of 6 steps, and resumed, are bit-equal."""
    uncut = Run(config_of(world), tmp_path / "uncut")
    uncut.train(bar=False)
    Run(config_of(world), tmp_path / "cut").train(3, bar=False)
    resumed = Run(config_of(world), tmp_path / "cut")
    resumed.resume()
    assert resumed.progress.step == 3
    resumed.train(bar=False)
    for name, value in weights_of(uncut).items():
        assert torch.equal(value, weights_of(resumed)[name]), name
    averages = zip(uncut.average.shadow_params, resumed.average.shadow_params, strict=True)
    assert all(torch.equal(one, other) for one, other in averages)
    for one, other in zip(uncut.optimizers, resumed.optimizers, strict=True):
        assert str(one.state_dict()["state"]) == str(other.state_dict()["state"])
    losses = [line["loss"] for line in log_of(tmp_path / "uncut")]
    assert losses == [line["loss"] for line in log_of(tmp_path / "cut")]


def test_a_tenth_of_the_rows_is_unconditional(world: Path, tmp_path: Path) -> None:
    """The run counts its unconditional rows: 10 % of them, within what chance allows."""
    run = Run(config_of(world, draws=8, steps=8), tmp_path)
    run.train(bar=False)
    rows = 8 * 8 * 2 * SIDE**2
    assert run.progress.rows == rows
    assert abs(run.progress.unconditional - 0.1 * rows) < 4 * (rows * 0.1 * 0.9) ** 0.5
    assert log_of(tmp_path)[-1]["unconditional"] == run.progress.unconditional


def test_a_row_of_one_picture_keeps_its_source(world: Path, tmp_path: Path) -> None:
    """What is unconditional is never asked for the driving picture's own face; the others make up for it."""
    run = Run(config_of(world), tmp_path)
    triplets = run.source.triplets(0, torch.Generator().manual_seed(1))
    assert triplets.same_picture.sum() == 2 * SIDE
    question = question_of(run, triplets, draws=100, unconditional=0.4)
    nobody = question.examples.source_row == len(triplets.source_latents)
    same = triplets.same_picture.repeat_interleave(100)
    assert nobody.sum() == question.unconditional
    assert not (nobody & same).any()
    assert nobody.float().mean() == pytest.approx(0.4, abs=0.05)


def test_rows_of_one_picture_can_be_left_out(world: Path, tmp_path: Path) -> None:
    """A run without them has n (n - 1) rows of a group, and none shows one picture."""
    config = config_of(world)
    data = config.data.model_copy(update={"same_picture": False})
    run = Run(config.model_copy(update={"data": data}), tmp_path)
    triplets = run.source.triplets(0, torch.Generator().manual_seed(1))
    assert not triplets.same_picture.any()
    assert len(triplets.truth) == 2 * SIDE * (SIDE - 1)
    assert (triplets.source_row != triplets.driving_row).all()


def test_an_error_in_an_eye_counts_as_much_as_is_said(world: Path, tmp_path: Path) -> None:
    """The latents that show a truth's eyes are marked, no others; the loss counts them by the config."""
    config = config_of(world)
    data = config.data.model_copy(update={"eyes": 5.0})
    run = Run(config.model_copy(update={"data": data}), tmp_path)
    pool = Pool(world / "pool", 1, SIDE, PIXELS)
    marked = run.source.trained.emphasis
    across = marked.shape[-1]
    step = PIXELS / across
    middles = (np.stack(np.meshgrid(np.arange(across), np.arange(across)), axis=-1) + 0.5) * step
    for index in range(2):
        places = pool.eyes(index)
        for identity, attributes in np.ndindex(SIDE, SIDE):
            seen = marked[index, identity, attributes].numpy() == 5
            assert set(np.unique(marked[index, identity, attributes])) == {1, 5}
            for x, y in np.floor(places[identity, attributes] / step).astype(int):
                assert seen[y, x]
            away = np.linalg.norm(middles[:, :, None] - places[identity, attributes], axis=-1).min(axis=-1)
            assert (away[seen] < PIXELS / 16 + step * 2**-0.5).all()
            assert seen[away < PIXELS / 16].all()

    triplets = run.source.triplets(0, torch.Generator().manual_seed(1))
    question = question_of(run, triplets, draws=2, unconditional=0.1)
    eyes = question.emphasis == 5
    wrong = question.v + eyes[:, None]  # an error of 1 in each latent of the eyes
    share = float(eyes.float().mean())
    assert 0 < share < 0.5
    assert float(v_loss(wrong, question.v)) == pytest.approx(share, rel=1e-4)
    counted = float(v_loss(wrong, question.v, emphasis=question.emphasis))
    assert counted == pytest.approx(5 * share, rel=1e-4)


def test_a_run_starts_from_a_checkpoint(world: Path, tmp_path: Path) -> None:
    """The networks of an exported run are a start, wired alike alone; exporting over it keeps its parts."""
    first = config_of(world)
    Run(first, tmp_path / "first").train(bar=False)
    checkpoint = exported(first, tmp_path / "first")
    start = {"kind": "checkpoint", "folder": str(checkpoint)}
    config = config_of(world, start=start, steps=1)
    run = Run(config, tmp_path / "second")
    averaged = averaged_networks(first, tmp_path / "first").state_dict()
    assert all(torch.equal(value, averaged[name]) for name, value in weights_of(run).items())
    run.train(bar=False)
    exported(config, tmp_path / "second", checkpoint)
    assert load_checkpoint(checkpoint).resolution == PIXELS
    assert str(tmp_path) not in (checkpoint / "unet" / "config.json").read_text()
    with pytest.raises(TrainingError, match="wiring 'one-to-one'"):
        Run(config_of(world, start=start, wiring="first-of-block"), tmp_path / "other")


def test_networks_go_on_with_more_latents(world: Path, tmp_path: Path) -> None:
    """From a checkpoint and a vae of more components, a run computes what the checkpoint did, and goes on."""
    first = config_of(world, steps=2)
    Run(first, tmp_path / "first").train(bar=False)
    checkpoint = exported(first, tmp_path / "first")
    pool = Pool(world / "pool", 1, SIDE, PIXELS)
    portraits = np.concatenate([pool.group(index).reshape(-1, PIXELS, PIXELS, 3) for index in range(GROUPS)])
    for channels, name in ((24, "finer"), (12, "coarser")):
        autoencoder(main_components(portraits, channels)).save_pretrained(tmp_path / name)
    start = {"kind": "checkpoint", "folder": str(checkpoint), "vae": str(tmp_path / "finer")}
    further = config_of(world, start=start, latent_weights=None, steps=1)
    run = Run(further, tmp_path / "second")
    before = averaged_networks(first, tmp_path / "first")

    vae = AutoencoderDC.from_pretrained(tmp_path / "finer")
    shared = channels_in(AutoencoderDC.from_pretrained(checkpoint / "vae"), vae)
    generator = torch.Generator().manual_seed(1)
    finer, noisy = torch.randn(2, 2, 24, 4, 4, generator=generator)
    tokens = torch.randn(2, 32, generator=generator)

    def seen(latents: torch.Tensor, noisy: torch.Tensor) -> Examples:
        rows, timesteps = torch.arange(2), torch.tensor([500, 999])
        return Examples(latents, tokens, latents, tokens, rows, rows, noisy, timesteps)

    def as_before(latents: torch.Tensor) -> torch.Tensor:
        return torch.einsum("cn,bnyx->bcyx", shared, latents)

    with torch.no_grad():
        answer = run.networks(seen(finer, noisy))
        expected = before(seen(as_before(finer), as_before(noisy)))
    assert expected.abs().mean() > 0.01
    assert torch.allclose(as_before(answer), expected, atol=1e-4)
    assert torch.allclose(torch.einsum("cn,bcyx->bnyx", shared, expected), answer, atol=1e-4)

    run.train(bar=False)
    exported(further, tmp_path / "second", checkpoint)
    assert load_checkpoint(checkpoint).vae.config.latent_channels == 24
    start["vae"] = str(tmp_path / "coarser")
    with pytest.raises(TrainingError, match="do not include"):
        Run(config_of(world, start=start), tmp_path / "other")


def test_frozen_parameters_stay_bit_equal(world: Path, tmp_path: Path) -> None:
    """As published, of the ReferenceNets only attention modules move, and of the UNet everything can."""
    run = Run(config_of(world, trained="as-published", steps=3), tmp_path)
    before = weights_of(run)
    run.train(bar=False)
    after = weights_of(run)
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    references = {name for name in moved if not name.startswith("unet.")}
    assert references
    assert all(".attn1." in name or ".attn2." in name for name in references)
    assert any(".conv1." in name for name in moved - references)


def test_the_checkpoint_computes_what_was_trained(world: Path, tmp_path: Path) -> None:
    """The exported folder loads strictly, and predicts at inference what training predicts."""
    config = config_of(world)
    Run(config, tmp_path / "run").train(bar=False)
    defaults = Defaults(d=1.1, steps=4, guidance_scale=1.0)
    checkpoint = load_checkpoint(exported(config, tmp_path / "run", defaults=defaults))
    assert checkpoint.properties.defaults == defaults
    assert checkpoint.properties.positions is Positions.SINUSOIDAL
    assert checkpoint.properties.wiring is Wiring.ONE_TO_ONE
    assert checkpoint.resolution == PIXELS
    portraits = Pool(world / "pool", 2, SIDE, PIXELS).group(0)
    source, driving = encode_images(checkpoint, [Image.fromarray(portraits[i, i]) for i in (0, 1)])
    still = torch.zeros(checkpoint.latent_shape)
    latents = [sample_posterior(checkpoint, encoded, still) for encoded in (source, driving)]
    face = FaceInputs(source.token, driving.token, *latents, degree=0.0, guided=False)
    conditioning = condition(checkpoint, [face])
    noisy = torch.randn(checkpoint.latent_shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        v = predict(checkpoint, conditioning, noisy, torch.tensor([700]))
    row = torch.tensor([0])
    examples = Examples(
        latents[0], source.token[:, 0], latents[1], driving.token[:, 0], row, row, noisy, torch.tensor([700])
    )
    with torch.no_grad():
        trained = averaged_networks(config, tmp_path / "run")(examples)
    assert torch.allclose(v, trained, atol=1e-4)


def test_latents_of_the_linear_autoencoder_show_the_portrait(world: Path) -> None:
    """The stock AutoencoderDC holds the main components: unit variance, and back above 30 dB."""
    portraits = Pool(world / "pool", 1, SIDE, PIXELS).group(0).reshape(-1, PIXELS, PIXELS, 3)
    components = main_components(portraits, 64)
    network = autoencoder(components)
    pixels = torch.from_numpy(portraits.copy()).movedim(-1, 1).float() / 127.5 - 1
    with torch.no_grad():
        latents = network.encode(pixels).latent
        back = network.decode(latents).sample
    assert latents.var(dim=(0, 2, 3), correction=0).numpy() == pytest.approx(np.ones(64), abs=0.1)
    assert -10 * torch.log10(((back - pixels) ** 2).mean() / 4) > 30


def test_muon_updates_are_orthogonal() -> None:
    """Every singular value of an update is near 1, of wide and of tall matrices."""
    matrices = torch.randn(3, 24, 60, generator=torch.Generator().manual_seed(1))
    for updates in (orthogonalized(matrices), orthogonalized(matrices.transpose(1, 2))):
        values = torch.linalg.svdvals(updates)
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_timesteps_are_drawn_as_said() -> None:
    """A quarter are the last one where that is asked for, and a power below 1 draws more noise."""
    generator = torch.Generator().manual_seed(1)
    drawn = Timesteps(0.25, 0.5).draw(4000, 1000, generator)
    assert drawn.min() >= 0
    assert (drawn == 999).float().mean() == pytest.approx(0.25, abs=0.03)
    assert drawn[drawn < 999].float().mean() == pytest.approx(666, abs=20)


def stable_diffusion(folder: Path) -> dict[str, Any]:
    """Write a tiny folder laid out as Stable Diffusion 2.1, and an image encoder; return the run's start."""
    torch.manual_seed(0)
    UNet2DConditionModel.from_config(SMALL.unet).save_pretrained(folder / "sd" / "unet")
    AutoencoderKL.from_config(SMALL.vae).save_pretrained(folder / "sd" / "vae")
    DDPMScheduler(**SCHEDULE).save_pretrained(folder / "sd" / "scheduler")
    CLIPVisionModel(CLIPVisionConfig(**SMALL.image_encoder)).save_pretrained(folder / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(
        folder / "clip"
    )
    return {
        "kind": "stable-diffusion",
        "folder": str(folder / "sd"),
        "image_encoder": str(folder / "clip"),
        "feature_extractor": str(folder / "clip"),
    }


def write_list(folder: Path, name: str, count: int) -> Path:
    """Write pictures and the list that names them; return the list."""
    draw = np.random.default_rng(len(name))
    lines = []
    for index in range(count):
        files = {}
        for part in ("source_image", "conditioning_image", "ground_truth"):
            files[part] = f"{name}-{index}-{part}.png"
            Image.fromarray(draw.integers(0, 255, (80, 80, 3), np.uint8)).save(folder / files[part])
        lines.append(json.dumps(files))
    file = folder / f"{name}.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_published_run_starts_from_stable_diffusion(tmp_path: Path) -> None:
    """Listed files, a curriculum, checkpointing and accumulation: three copies of the one UNet train."""
    data = {
        "kind": "listed",
        "stages": [
            {"until": 1, "files": [str(write_list(tmp_path, "reversed", 2))]},
            {"files": [str(write_list(tmp_path, "real", 3))]},
        ],
        "held_out": str(write_list(tmp_path, "kept", 2)),
        "pixels": 64,
        "same_picture_share": 0.5,
    }
    config = TrainingConfig.model_validate(
        {
            "name": "published",
            "steps": 2,
            "data": data,
            "start": stable_diffusion(tmp_path),
            "trained": "as-published",
            "wiring": "first-of-block",
            "gradient_checkpointing": True,
            "optimization": {"rate": 1e-5, "accumulate": 2},
            "reports": {"log": 1, "validate_every": 2, "save": 10},
        }
    )
    run = Run(config, tmp_path / "run")
    start = weights_of(run)
    for name, value in run.networks.unet.state_dict().items():
        assert torch.equal(value, start[f"referencenet.{name}"])
        assert torch.equal(value, start[f"conditioning_referencenet.{name}"])
    run.train(bar=False)
    moved = {name for name, value in weights_of(run).items() if not torch.equal(value, start[name])}
    assert any(name.startswith("unet.") for name in moved)
    assert any(name.startswith("referencenet.") for name in moved)
    assert any(name.startswith("conditioning_referencenet.") for name in moved)
    assert run.progress.rows == 4
    assert "held_out_loss" in log_of(tmp_path / "run")[-1]


def test_two_processes_share_a_step(world: Path, tmp_path: Path) -> None:
    """Under a launcher, each process takes its own rows, and one of them logs and saves for all."""
    file = tmp_path / "config.json"
    file.write_text(config_of(world, steps=2).model_dump_json())
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "cli.main", "train", "run", "--threads", "1"]
    subprocess.run(
        [sys.executable, *launch, *command, file, tmp_path / "run"],
        check=True,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert [line["rows"] for line in log_of(tmp_path / "run")] == [2 * 2 * SIDE**2, 4 * 2 * SIDE**2]
    assert averaged_networks(config_of(world), tmp_path / "run")


def test_checkpointed_gradients_are_the_same(world: Path, tmp_path: Path) -> None:
    """Gradient checkpointing saves memory and changes no result."""
    plain = Run(config_of(world, steps=2), tmp_path / "plain")
    saving = Run(config_of(world, steps=2, gradient_checkpointing=True), tmp_path / "saving")
    for run in (plain, saving):
        run.train(bar=False)
    for name, value in weights_of(plain).items():
        assert torch.allclose(value, weights_of(saving)[name], atol=1e-6), name


def test_the_configs_that_ship_are_configs() -> None:
    """Each file names a run."""
    files = sorted(Path(model.training.__path__[0], "configs").glob("*.json"))
    assert [read_config(file).wiring for file in files] == ["first-of-block", *["one-to-one"] * 3]


def test_what_cannot_run_says_why(world: Path, tmp_path: Path) -> None:
    """A wrong field, a missing list, a malformed line and a missing state are named."""
    file = tmp_path / "config.json"
    file.write_text('{"name": "x", "steps": 0}')
    with pytest.raises(TrainingError, match="steps"):
        read_config(file)
    with pytest.raises(TrainingError, match=r"nothing\.jsonl"):
        read_lines(tmp_path / "nothing.jsonl")
    listed = tmp_path / "list.jsonl"
    listed.write_text('{"source_image": "a.png"}\n')
    with pytest.raises(TrainingError, match="line 1"):
        read_lines(listed)
    with pytest.raises(TrainingError, match="no state"):
        Run(config_of(world), tmp_path / "run").resume()
