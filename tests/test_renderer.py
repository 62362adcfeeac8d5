"""Rendered portraits: what each parameter does to the picture, and where the landmarks are in it."""

from dataclasses import fields, replace

import numpy as np
import pytest

from model.errors import ParameterError
from model.renderer.groups import crossed, triplets
from model.renderer.parameters import (
    Attributes,
    Floats,
    Identity,
    sample_attributes,
    sample_identities,
)
from model.renderer.picture import landmarks, render
from model.renderer.shape import Hair, Head, Solid

COUNT = 12


def full(count: int, value: float | tuple[float, float, float]) -> Floats:
    """Return the value, or the colour, for each portrait."""
    return (
        np.tile(np.asarray(value, np.float32), (count, 1))
        if isinstance(value, tuple)
        else np.full(count, value, np.float32)
    )


def frontal(attributes: Attributes) -> Attributes:
    """Return the attributes with the face to the camera, calm, lit from the front."""
    count = len(attributes)
    zero, one = full(count, 0), full(count, 1)
    return replace(
        attributes, yaw=zero, pitch=zero, roll=zero, x=zero, y=zero, scale=one, mouth_open=zero, smile=zero,
        eyes_open=one, gaze_x=zero, gaze_y=zero, brows=zero, light=full(count, (0, 0, 1)),
        brightness=one * 0.8, ambient=one * 0.3,
    )  # fmt: skip


def plain(identity: Identity) -> Identity:
    """Return the identities without what may hide a landmark or colour the skin."""
    none = full(len(identity), 0)
    return replace(identity, glasses=none, beard=none, moustache=none, blush=none, hair_line=none - 0.5)


def at(pictures: np.ndarray, points: Floats) -> np.ndarray:
    """Return the colours (n, 3) of the pixels at points (n, 2)."""
    x, y = points.astype(int).T
    return pictures[np.arange(len(pictures)), y, x].astype(float)


def test_seed_decides_all() -> None:
    """The same seeds give the same bytes, another seed other ones, and a batch is what its rows are alone."""
    first = render(sample_identities(3, COUNT), sample_attributes(4, COUNT), 64)
    assert np.array_equal(first, render(sample_identities(3, COUNT), sample_attributes(4, COUNT), 64))
    assert not np.array_equal(first, render(sample_identities(5, COUNT), sample_attributes(4, COUNT), 64))
    assert not np.array_equal(first, render(sample_identities(3, COUNT), sample_attributes(5, COUNT), 64))
    alone = slice(7, 8)
    again = render(sample_identities(3, COUNT).rows(alone), sample_attributes(4, COUNT).rows(alone), 64)
    assert np.abs(first[alone].astype(int) - again).max() <= 1


def test_each_parameter_shows() -> None:
    """Each parameter, moved from its lowest to its highest, changes at least ten pixels visibly."""
    count = 8
    identity, attributes = sample_identities(0, count), frontal(sample_attributes(1, count))
    identity = replace(
        identity,
        hair=full(count, 1),
        hair_length=full(count, 0.5),
        glasses=full(count, 1),
        beard=full(count, 0),
    )
    attributes = replace(attributes, mouth_open=full(count, 0.2), yaw=full(count, 0.2))
    for batch, other in ((identity, sample_identities(9, 64)), (attributes, sample_attributes(9, 64))):
        for field in fields(batch):
            values = getattr(other, field.name)
            ends = (
                np.tile(end, (count, 1)[: values.ndim]) for end in (values.min(axis=0), values.max(axis=0))
            )
            shown = []
            for value in ends:
                changed = replace(batch, **{field.name: value})  # type: ignore[type-var]
                pair = (changed, attributes) if isinstance(changed, Identity) else (identity, changed)
                shown.append(render(*pair, 64).astype(int))
            pixels = (np.abs(shown[0] - shown[1]).max(axis=-1) > 6).sum(axis=(1, 2))
            assert np.median(pixels) >= 10, field.name


def test_frontal_face_fills_the_frame() -> None:
    """A frontal face lies as in an aligned crop: eyes at .37 and .63 by .48, mouth at .66 of the height."""
    identity, attributes = sample_identities(1, 200), frontal(sample_attributes(2, 200))
    middle = landmarks(identity, attributes, 1).mean(axis=0)
    expected = [(0.37, 0.48), (0.63, 0.48), (0.5, 0.58), (0.405, 0.66), (0.595, 0.66)]
    assert middle == pytest.approx(np.asarray(expected), abs=0.02)


def test_eyes_and_mouth_are_at_their_landmarks() -> None:
    """With the gaze ahead an eye's centre is pupil or iris, and between the mouth's corners is lip."""
    count = 10
    attributes = frontal(sample_attributes(5, count))
    for yaw, pitch, roll in ((0, 0, 0), (0.4, 0, 0), (-0.4, 0.1, 0), (0, 0.2, 0.1), (0.3, -0.2, -0.1)):
        turned = replace(attributes, yaw=full(count, yaw), pitch=full(count, pitch), roll=full(count, roll))
        identity = replace(plain(sample_identities(6, count)), skin=full(count, (0.9, 0.72, 0.6)))
        identity = replace(
            identity, eye_colour=full(count, (0.1, 0.1, 0.9)), lip_colour=full(count, (0.1, 0.8, 0.1))
        )
        pictures = render(identity, turned, 256)
        points = landmarks(identity, turned, 256)
        for eye in (0, 1):
            # Just beside the pupil's highlight.
            red, _, blue = at(pictures, np.add(points[:, eye], (0, 3))).T
            assert (red < 120).all()
            assert (blue > red - 12).all()
        red, green, _ = at(pictures, np.add(points[:, 3:].mean(axis=1), (0, 2))).T
        assert (green > red).all()


def test_landmarks_follow_the_picture() -> None:
    """Landmarks move, roll and scale with the head; a turn to the right takes the nose to the right."""
    identity, attributes = sample_identities(7, COUNT), frontal(sample_attributes(8, COUNT))
    points = landmarks(identity, attributes, 128)
    moved = landmarks(identity, replace(attributes, x=full(COUNT, 0.1), y=full(COUNT, -0.05)), 128)
    assert moved - points == pytest.approx(np.broadcast_to((6.4, -3.2), points.shape), abs=1.0)
    rolled = landmarks(identity, replace(attributes, roll=full(COUNT, 0.3)), 128)
    across = rolled[:, 1] - rolled[:, 0]
    assert np.arctan2(across[:, 1], across[:, 0]) == pytest.approx(full(COUNT, 0.3), abs=0.01)
    right = landmarks(identity, replace(attributes, yaw=full(COUNT, 0.4)), 128)
    assert (right[:, 2, 0] - right[:, :2, 0].mean(axis=1) > 4).all()
    down = landmarks(identity, replace(attributes, pitch=full(COUNT, 0.2)), 128)
    assert (
        down[:, 2, 1] - down[:, :2, 1].mean(axis=1) > (points[:, 2, 1] - points[:, :2, 1].mean(axis=1)) + 1
    ).all()
    assert landmarks(identity, attributes, 256) == pytest.approx(2 * points, abs=1e-3)


def test_identity_keeps_its_colours_and_attributes_their_places() -> None:
    """An identity's skin and hair keep their colour in other poses; a pose places all eyes alike."""
    identities = plain(replace(sample_identities(10, 5), hair=full(5, 1), hair_volume=full(5, 0.08)))
    poses = frontal(sample_attributes(11, 6))
    poses = replace(
        poses,
        yaw=np.linspace(-0.35, 0.35, 6, dtype=np.float32),
        smile=np.linspace(-0.5, 1, 6, dtype=np.float32),
    )
    group = crossed(identities, poses)
    pictures, points = render(*group, 128), landmarks(*group, 128)
    bridge = at(pictures, points[:, :2].mean(axis=1) - (0, 12)).reshape(5, 6, 3)
    top = np.add(points[:, :2].mean(axis=1) * (1, 0), (0, 11))
    hair = at(pictures, top).reshape(5, 6, 3)
    for colours in (bridge, hair):
        chroma = colours / colours.sum(axis=-1, keepdims=True)
        within = chroma.std(axis=1).mean()
        assert within < 0.3 * chroma.mean(axis=1).std(axis=0).mean()
    eyes = points[:, :2].mean(axis=1).reshape(5, 6, 2)
    assert eyes.std(axis=0).max() < 1.5
    assert np.ptp(eyes.mean(axis=0)[:, 0]) > 6


def test_sizes_agree() -> None:
    """A larger picture averaged down is the smaller one, but for edges: a mean difference below 2.5."""
    identity, attributes = sample_identities(12, COUNT), sample_attributes(13, COUNT)
    large = render(identity, attributes, 256).astype(float)
    for size in (64, 128):
        part = 256 // size
        down = large.reshape(COUNT, size, part, size, part, 3).mean(axis=(2, 4))
        difference = np.abs(down - render(identity, attributes, size))
        assert difference.mean() < 2.5
        assert difference.mean(axis=(1, 2, 3)).max() < 4


def test_edges_are_smooth() -> None:
    """Edges are mixed pixels: a head moved by a tenth of a pixel changes the picture a little."""
    identity, attributes = sample_identities(14, COUNT), frontal(sample_attributes(15, COUNT))
    first = render(identity, attributes, 64).astype(int)
    moved = render(identity, replace(attributes, x=full(COUNT, 0.1 * 2 / 64)), 64).astype(int)
    difference = np.abs(first - moved)
    assert difference.mean() > 0.1
    assert np.quantile(difference, 0.999) < 45


def test_values_are_in_range_and_used() -> None:
    """Pictures of many seeds span dark to light without burning out, and their landmarks are finite."""
    identity, attributes = sample_identities(16, 128), sample_attributes(17, 128)
    pictures = render(identity, attributes, 64)
    assert pictures.shape == (128, 64, 64, 3)
    assert pictures.min() < 20
    assert (pictures == 255).mean() < 0.02
    assert np.isfinite(landmarks(identity, attributes, 64)).all()
    assert np.linalg.norm(attributes.light, axis=1) == pytest.approx(np.ones(128), abs=1e-5)


def test_extreme_poses_and_expressions_render() -> None:
    """Poses and expressions at and beyond the sampled ranges raise no warning and give whole pictures."""
    identity, attributes = sample_identities(18, 4), sample_attributes(19, 4)
    ends = np.asarray((-0.9, -0.5, 0.5, 0.9), np.float32)
    for field in ("yaw", "pitch", "roll", "smile", "gaze_x", "gaze_y", "brows"):
        pictures = render(identity, replace(attributes, **{field: ends}), 64)  # type: ignore[arg-type]
        assert pictures.std(axis=(1, 2, 3)).min() > 10


@pytest.mark.parametrize("solid", ["head", "hair"])
def test_bounds_hold_the_solid(solid: str) -> None:
    """No point outside the ellipsoid about a solid is in the solid: rays that miss one miss the other."""
    identity, attributes = (
        sample_identities(20, 300),
        replace(sample_attributes(21, 300), mouth_open=full(300, 1)),
    )
    body: Solid = Head(identity, attributes) if solid == "head" else Hair(identity)
    points = np.random.default_rng(0).uniform(-1, 1, (3, 1, 60, 60)).astype(np.float32) * 2
    centre, radii = body.bounds()
    outside = (((points - centre) / radii) ** 2).sum(axis=0) > 1
    assert (body.distance(np.broadcast_to(points, (3, 300, 60, 60)))[outside] > 0).all()


def test_groups_number_their_triplets() -> None:
    """Each triplet's truth has the source's identity in the driving's attributes, and no pair repeats."""
    identities, attributes = sample_identities(22, 3), sample_attributes(23, 4)
    who, how = crossed(identities, attributes)
    assert len(who) == len(how) == 12
    every = triplets(3, 4)
    assert len(every.truth) == 3 * 2 * 4 * 3
    assert np.array_equal(who.rows(every.truth).skin, who.rows(every.source).skin)
    assert np.array_equal(how.rows(every.truth).yaw, how.rows(every.driving).yaw)
    assert (who.rows(every.source).jaw != who.rows(every.driving).jaw).all()
    assert (how.rows(every.source).yaw != how.rows(every.driving).yaw).all()
    assert len({*zip(every.source.tolist(), every.driving.tolist(), strict=True)}) == len(every.truth)


def test_wrong_parameters_are_refused() -> None:
    """Counts that differ, sizes out of range, values that are not finite, groups too small: all raise."""
    identity, attributes = sample_identities(0, 2), sample_attributes(0, 3)
    with pytest.raises(ParameterError, match="2 identities, but 3 attributes"):
        render(identity, attributes, 64)
    with pytest.raises(ParameterError, match="size is 8"):
        render(identity, attributes.rows(slice(2)), 8)
    with pytest.raises(ParameterError, match="jaw has a value"):
        replace(identity, jaw=np.asarray((1, np.nan), np.float32))
    with pytest.raises(ParameterError, match="rows"):
        replace(identity, jaw=full(3, 1))
    with pytest.raises(ParameterError, match="count is 0"):
        sample_identities(0, 0)
    with pytest.raises(ParameterError, match="no triplet"):
        triplets(1, 4)
