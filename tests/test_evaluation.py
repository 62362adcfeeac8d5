"""The evaluation measures what it says: makers of faces whose results are known get the figures they
deserve.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.main import SHIPPED_CHECKPOINT
from model.anonymize import anonymize_face
from model.checkpoint import Checkpoint, load_checkpoint
from model.conditioning import Equations
from model.errors import CheckpointError
from model.evaluation.comparison import decibel
from model.evaluation.estimates import estimate
from model.evaluation.evaluation import evaluate, targets
from model.evaluation.experiments import ENCODED, ITSELF, RANDOM, STRANGER, Experiments, Plan, World
from model.evaluation.findings import Row, Table
from model.evaluation.makers import CheckpointMaker, FaceMaker, How
from model.evaluation.networks import (
    EXPRESSION,
    GAZE,
    PARAMETERS,
    POSE,
    SHAPE,
    MeasuringNetwork,
    load_network,
    save_network,
)
from model.evaluation.portraits import Pixels, Portraits, Stream, backgrounds, portray, sample
from model.evaluation.readings import Measures, read, soft, validated
from model.renderer.parameters import Identity
from model.task import Sampler

PLAN = Plan(
    count=12, seeds=1, degrees=(0.3, 0.9, 1.25), gallery=60, few=2, shown=2, samplers=((Sampler.DDPM, 1),)
)
HOW = How(Sampler.DDPM, 1, 1.0)


class SeeingFinder:
    """Finds a face in every picture: the finder has tests of its own."""

    def find(self, pixels: Pixels) -> list[object]:
        """Return one face."""
        return [object()] if pixels.any() else []


@dataclass(frozen=True)
class Renderer:
    """A perfect model: it knows the parameters, and moves identities to strangers' as d goes to 1.25."""

    def anonymize(self, portraits: Portraits, seeds: Sequence[int], degree: float, how: How) -> Pixels:
        """Render an identity between the portrait's own and a stranger's."""
        del seeds, how
        strangers = sample(Stream.GALLERY, len(portraits), 64).identities
        share = min(degree / 1.25, 1.0)
        own = portraits.identities.arrays()
        mixed = {
            name: ((1 - share) * own[name] + share * other).astype(np.float32)
            for name, other in strangers.arrays().items()
        }
        return portray(Identity(**mixed), portraits.attributes, 64).pictures

    def swap(self, sources: Portraits, drivings: Portraits, seeds: Sequence[int], how: How) -> Pixels:
        """Render the truth."""
        del seeds, how
        return portray(sources.identities, drivings.attributes, 64).pictures

    def reconstruct(self, portraits: Portraits) -> Pixels:
        """Return the portraits, blurred."""
        return soft(portraits.pictures, 2.0)


@dataclass(frozen=True)
class Copier:
    """A model that changes nothing."""

    def anonymize(self, portraits: Portraits, seeds: Sequence[int], degree: float, how: How) -> Pixels:
        """Return the portraits."""
        del seeds, degree, how
        return portraits.pictures

    def swap(self, sources: Portraits, drivings: Portraits, seeds: Sequence[int], how: How) -> Pixels:
        """Return the driving portraits."""
        del sources, seeds, how
        return drivings.pictures

    def reconstruct(self, portraits: Portraits) -> Pixels:
        """Return the portraits."""
        return portraits.pictures


@pytest.fixture(scope="module")
def measures() -> Measures:
    """Return the network that ships, validated on few portraits."""
    return validated(load_network(), 160)


@pytest.fixture(scope="module")
def world(measures: Measures) -> World:
    """Return portraits to make faces of, rendered once for all makers."""
    return World(measures, PLAN.count, PLAN.gallery, 64)


def experiments(maker: FaceMaker, world: World) -> Experiments:
    """Return the experiments of one maker."""
    return Experiments(maker, world, SeeingFinder(), HOW, PLAN)  # type: ignore[arg-type]


def value(row: Row, name: str) -> float:
    """Return a measured mean."""
    return row.values[name].value


def anchor(table: Table, label: str) -> Row:
    """Return the row of portraits with a label."""
    return next(row for row in table.anchors if row.label == label)


def test_shipped_network_reads(measures: Measures) -> None:
    """It tells identities apart on crisp and soft pictures, and reads pose, gaze and expression of unseen
    portraits, but for raised brows.
    """
    assert measures.verification.accuracy > 0.95
    assert measures.verification.accuracy_soft > 0.9
    assert measures.verification.same < measures.verification.threshold < measures.verification.strangers
    read = set(measures.readable(PARAMETERS))
    assert read >= {*POSE, *GAZE, *EXPRESSION} - {"brows"}
    assert len(read & set(SHAPE)) > len(SHAPE) / 2


def test_perfect_swap(world: World) -> None:
    """The truth in place of a swap is always closer to the source, and errs only as far as reading does."""
    table, strip = experiments(Renderer(), world).swaps()
    swapped = table.rows[0]
    assert value(swapped, "closer") == 1
    assert swapped.values == anchor(table, "the truth itself").values
    assert value(swapped, "background") == 60
    assert value(swapped, "pose") < 0.5 * value(anchor(table, "the source portrait"), "pose")
    assert np.array_equal(strip.pictures[:, 2], strip.pictures[:, 3])


def test_swap_that_does_nothing(world: World) -> None:
    """The driving portrait in place of a swap is never closer to the source, and keeps pose and gaze."""
    table, _ = experiments(Copier(), world).swaps()
    swapped = table.rows[0]
    assert value(swapped, "closer") == 0
    assert value(swapped, "to_driving") == pytest.approx(0, abs=1e-5)
    assert value(swapped, "pose") < 0.5 * value(anchor(table, "the source portrait"), "pose")


def test_copy_is_recognized(world: World) -> None:
    """A copy lies at distance 0, is re-identified always, errs as reading does, and meets no identity
    target.
    """
    table, _ = experiments(Copier(), world).degrees()
    for row in table.rows:
        assert value(row, "identity_distance") == pytest.approx(0, abs=1e-5)
        assert value(row, "to_others") == pytest.approx(value(row, "apart"))
        assert value(row, "apart") > world.measures.verification.threshold
        assert value(row, "re_identified") == 1
        assert value(row, "background") == 60
        assert value(row, "gaze") == value(anchor(table, ITSELF), "gaze")
    swap, _ = experiments(Copier(), world).swaps()
    met = {target.wanted: target.met for target in targets(table, swap, 1.25)}
    assert met["identity distance rises with d over the whole range"] is False
    assert met["identity distance reaches that of strangers by d = 1.25"] is False
    assert met["swaps closer to the source than to the driving portrait: at least 95 %"] is False
    assert met["pose error, d = 1.25: below 0.5 of that between random pairs"] is True
    assert met["background, d = 1.25, in dB: at least 26"] is True


def test_strangers_are_as_far_as_strangers(world: World) -> None:
    """Identities that move to strangers' get farther with d, reach their distance, and are found no more."""
    evaluated = evaluate(experiments(Renderer(), world), "perfect", {})
    table = evaluated.findings.tables[0]
    met = {target.wanted: target.met for target in evaluated.findings.targets}
    assert met["identity distance rises with d over the whole range"] is True
    assert met["identity distance reaches that of strangers by d = 1.25"] is True
    assert value(table.rows[-1], "re_identified") == 0
    assert value(table.rows[-1], "to_others") == pytest.approx(value(table.rows[-1], "apart"), abs=0.2)
    assert value(anchor(table, STRANGER), "identity_distance") > world.measures.verification.threshold
    assert value(table.rows[-1], "looks") > 2 * value(anchor(table, ITSELF), "looks")
    assert value(anchor(table, ENCODED), "gaze") > value(anchor(table, ITSELF), "gaze")
    assert value(anchor(table, RANDOM), "pose") > 2 * value(table.rows[-1], "pose")
    assert {strip.key for strip in evaluated.strips} == {"degree", "seeds", "swap", "equations", "samplers"}


def test_what_cannot_be_read_is_not_reported() -> None:
    """A network that was never trained reads nothing and tells nobody apart: all of it is left out, with the
    reason.
    """
    useless = validated(MeasuringNetwork().eval(), 40)
    assert useless.readable(PARAMETERS) == ()
    few = replace(PLAN, count=4)
    findings = evaluate(replace(experiments(Renderer(), World(useless, 4, 8, 64)), plan=few), "", {}).findings
    assert {name for table in findings.tables for row in table.rows for name in row.values} <= {
        "background", "face", "found", "likeness",
    }  # fmt: skip
    assert len(findings.left_out) >= len(PARAMETERS) + 1
    assert any(reason.startswith("yaw: R2") for reason in findings.left_out)
    assert all(target.met is None for target in findings.targets if "background" not in target.wanted)


def test_finder_that_finds_nothing_is_not_reported(world: World) -> None:
    """Where the finder does not find the portraits themselves, nothing is said about faces found."""

    class Blind:
        def find(self, pixels: Pixels) -> list[object]:
            del pixels
            return []

    blind = replace(experiments(Copier(), world), finder=Blind())  # type: ignore[arg-type]
    findings = evaluate(blind, "blind", {}).findings
    assert not any("found" in row.values for table in findings.tables for row in table.rows)
    assert any(reason.startswith("face found") for reason in findings.left_out)


def test_background_is_what_no_head_hides() -> None:
    """Other heads before the same background agree in every pixel that is background in both."""
    portraits = sample(Stream.SUBJECTS, 8, 64)
    others = portray(sample(Stream.STRANGERS, 8, 64).identities, portraits.attributes, 64)
    both = backgrounds(portraits) & backgrounds(others)
    assert both.any(axis=(1, 2)).all()
    apart = portraits.pictures[both].astype(int) - others.pictures[both]
    assert np.abs(apart).max() <= 1


def test_streams_share_no_identity() -> None:
    """Each stream has identities of its own, other than those of plain seeds, with which training draws."""
    streams = [sample(stream, 6, 16).identities.skin for stream in Stream]
    assert len({skin.tobytes() for skin in streams}) == len(Stream)


def test_estimate_is_over_subjects() -> None:
    """Seeds of one subject count as one: the interval is as wide as that of the subjects' means."""
    subjects = np.random.default_rng(1).normal(5, 1, 200)
    repeated = estimate(np.repeat(subjects[:, None], 50, axis=1))
    alone = estimate(subjects)
    assert alone is not None
    assert repeated is not None
    assert repeated.model_dump() == pytest.approx(alone.model_dump())
    assert alone.low < 5.2
    assert alone.high > 4.8
    assert alone.high - alone.low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.25)
    assert estimate(np.array([np.nan, np.nan])) is None
    partly = estimate(np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, 3.0]]))
    assert partly is not None
    assert partly.count == 2


def test_batch_makes_what_single_runs_make(tiny: Checkpoint) -> None:
    """A checkpoint's faces are those of `anonymize_face`, whoever shares the batch."""
    portraits = sample(Stream.SUBJECTS, 3, 64)
    how = How(Sampler.DDIM, 3, 2.0)
    made = CheckpointMaker(tiny, slots=2).anonymize(portraits, [5, 6, 7], 1.25, how)
    for picture, seed, face in zip(portraits.pictures, (5, 6, 7), made, strict=True):
        alone = anonymize_face(
            tiny,
            Image.fromarray(picture),
            seed=seed,
            degree=1.25,
            steps=3,
            guidance_scale=2.0,
            sampler=Sampler.DDIM,
        )
        assert np.abs(np.asarray(alone).astype(int) - face).max() <= 1


def test_what_latents_hold_is_shown() -> None:
    """The shipped checkpoint's own encoding of portraits is near them, all of them, and not the same."""
    checkpoint = load_checkpoint(SHIPPED_CHECKPOINT)
    portraits = sample(Stream.SUBJECTS, 5, 64)
    held = CheckpointMaker(checkpoint, slots=2).reconstruct(portraits)
    assert held.shape == portraits.pictures.shape
    everywhere = np.ones(held.shape[:3], bool)
    near = decibel(held, portraits.pictures, everywhere)
    assert (near > 26).all()
    assert (near < 45).all()
    assert decibel(np.roll(held, 1, axis=0), portraits.pictures, everywhere).max() < 20


def test_equations_differ(tiny: Checkpoint) -> None:
    """At d = 0 there is nothing to leave out; at d = 1.25 each ablation makes other faces."""
    portraits = sample(Stream.SUBJECTS, 2, 64)

    def made(degree: float, equations: Equations) -> bytes:
        how = How(Sampler.DDIM, 2, 1.0, equations)
        return CheckpointMaker(tiny).anonymize(portraits, [1, 2], degree, how).tobytes()

    assert len({made(0.0, equations) for equations in Equations}) == 1
    assert len({made(1.25, equations) for equations in Equations}) == len(Equations)


def test_weights_are_strict(tmp_path: Path) -> None:
    """Weights come back as they were saved, in half precision; a file that does not fit is refused."""
    network = load_network()
    file = tmp_path / "weights.safetensors"
    save_network(network, file)
    portraits = sample(Stream.SUBJECTS, 4, 64)
    again = read(load_network(file), portraits.pictures)
    assert np.array_equal(again.parameters, read(network, portraits.pictures).parameters)
    assert again.parameters.shape == (4, len(PARAMETERS))
    file.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_network(file)
