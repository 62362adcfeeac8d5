"""Whole photos: every chosen face is replaced or covered, none is left as it was, the rest is untouched."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import PHOTO
from PIL import Image

from model.checkpoint import Checkpoint
from model.engine import Engine
from model.errors import DeviceError, NoFaceError, ParameterError, StoppedError
from model.faces.alignment import Pixels, align
from model.faces.face import Box, Face, Landmarks
from model.faces.identity import DlibFaceEmbedder
from model.photo import read_photo
from model.pipeline import Faces, Pipeline, Sampling
from model.replace import FaceStatus, ReplacedPhoto, face_seed, replace_faces
from model.task import OnStep

SIZE = 64


def face_at(x: float, y: float, eyes: float, score: float = 0.9) -> Face:
    """Return a frontal face whose eyes' middle is at (x, y), `eyes` pixels apart."""
    half = eyes / 2
    return Face(
        Box(x - eyes, y - eyes, 2 * eyes, 2.4 * eyes),
        score,
        Landmarks(
            left_eye=(x - half, y),
            right_eye=(x + half, y),
            nose=(x, y + 0.6 * eyes),
            mouth_left=(x - 0.4 * eyes, y + eyes),
            mouth_right=(x + 0.4 * eyes, y + eyes),
        ),
    )


THREE = [face_at(100, 90, 30), face_at(300, 100, 40), face_at(200, 300, 36)]


class FoundBefore:
    """A finder that knows its photo."""

    def __init__(self, faces: list[Face]) -> None:
        self.faces = faces

    def find(self, pixels: Pixels) -> list[Face]:  # noqa: ARG002  the finder's interface
        """Return the faces it was given."""
        return self.faces


@pytest.fixture(scope="module")
def embedder() -> DlibFaceEmbedder:
    """Return the identity network."""
    return DlibFaceEmbedder()


@pytest.fixture
def scene() -> Pixels:
    """Return a textured photo of 400 x 400 pixels."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (25, 25, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((400, 400), Image.Resampling.BICUBIC))


class Made:
    """A face that is finished as soon as it is asked for."""

    def __init__(self, make: Callable[[], Image.Image]) -> None:
        self.result = make
        self.canceled = False

    def cancel(self) -> None:
        """Remember that."""
        self.canceled = True


def inverted(face: Image.Image, _seed: int, _on_step: OnStep) -> Made:
    """Make another face, of a kind: the negative."""
    return Made(lambda: Image.fromarray(255 - np.asarray(face)))


def failing() -> Image.Image:
    """Fail as a network may."""
    raise RuntimeError("no memory")


def run(scene: Pixels, faces: list[Face], embedder: DlibFaceEmbedder, **options: object) -> ReplacedPhoto:
    """Replace the faces of a scene by their negatives."""
    settings = {"begin_face": inverted, "only_largest": False, "seed": 7} | options
    return replace_faces(scene, faces, resolution=SIZE, embedder=embedder, **settings)  # type: ignore[arg-type]


def touched(scene: Pixels, result: ReplacedPhoto, face: Face) -> float:
    """Return the mean change of the inner face, in grey values."""
    assert face.landmarks is not None
    x, y = (int(value) for value in align(face.landmarks).centre)
    reach = int(face.box.width / 4)
    inner = np.s_[y - reach : y + reach, x - reach : x + reach]
    return float(np.abs(result.pixels[inner].astype(int) - scene[inner]).mean())


def test_each_face_is_replaced_with_its_own_seed(scene: Pixels, embedder: DlibFaceEmbedder) -> None:
    """Each face has a seed of its own, derived from the job's and its place; the first has the job's."""
    seeds: list[int] = []

    def begin_face(face: Image.Image, seed: int, _on_step: OnStep) -> Made:
        seeds.append(seed)
        return inverted(face, seed, _on_step)

    result = run(scene, THREE, embedder, begin_face=begin_face)
    assert [face.status for face in result.faces] == [FaceStatus.REPLACED] * 3
    assert seeds == [face.seed for face in result.faces] == [face_seed(7, index) for index in range(3)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 3
    assert all(touched(scene, result, face) > 10 for face in THREE)


def test_a_face_does_not_depend_on_the_others(scene: Pixels, embedder: DlibFaceEmbedder) -> None:
    """Around a face the photo is the same, whether the other faces were replaced or covered."""

    def only_first(face: Image.Image, seed: int, on_step: OnStep) -> Made:
        return inverted(face, seed, on_step) if seed == face_seed(7, 0) else Made(failing)

    all_made = run(scene, THREE, embedder)
    one_made = run(scene, THREE, embedder, begin_face=only_first)
    inner = np.s_[80:120, 80:120]
    assert np.array_equal(all_made.pixels[inner], one_made.pixels[inner])


def test_pixels_away_from_faces_are_bit_identical(scene: Pixels, embedder: DlibFaceEmbedder) -> None:
    """Outside the crops of the replaced faces nothing changes."""
    result = run(scene, THREE, embedder)
    away = np.ones(scene.shape[:2], dtype=bool)
    for face in THREE:
        assert face.landmarks is not None
        left, top, width, height = align(face.landmarks).bounds(400, 400)
        away[top : top + height, left : left + width] = False
    assert away.sum() > 10_000
    assert np.array_equal(result.pixels[away], scene[away])


def test_a_sampler_that_raises_at_face_2_of_3_covers_that_face(
    scene: Pixels, embedder: DlibFaceEmbedder
) -> None:
    """The face is covered and reported; the other two are replaced."""

    def fails_second(face: Image.Image, seed: int, on_step: OnStep) -> Made:
        return Made(failing) if seed == face_seed(7, 1) else inverted(face, seed, on_step)

    result = run(scene, THREE, embedder, begin_face=fails_second)
    assert [face.status.value for face in result.faces] == ["replaced", "redacted", "replaced"]
    assert result.faces[1].identity_distance is None
    assert "covered: the network could not make" in result.faces[1].warnings[0]
    assert touched(scene, result, THREE[1]) > 5


def test_a_covered_face_leaves_no_trace(scene: Pixels, embedder: DlibFaceEmbedder) -> None:
    """Two photos that differ only in the face become the same photo when it is covered."""
    face = Face(Box(160, 160, 60, 70), 0.5, None)
    other = scene.copy()
    other[170:220, 165:215] = 255 - other[170:220, 165:215]
    assert np.array_equal(run(scene, [face], embedder).pixels, run(other, [face], embedder).pixels)


@pytest.mark.parametrize(
    ("landmarks", "reason"),
    [
        (None, "its landmarks are unusable"),
        (Landmarks((50, 50), (50, 50), (50, 50), (50, 50), (50, 50)), "the least is 4"),
        (Landmarks((float("nan"), 50), (70, 50), (60, 60), (50, 75), (70, 75)), "not a finite number"),
        (Landmarks((50, 50), (90, 50), (70, 50), (50, 51), (90, 51)), "the mouth is"),
    ],
)
def test_unusable_landmarks_end_in_a_cover(
    scene: Pixels, embedder: DlibFaceEmbedder, landmarks: Landmarks | None, reason: str
) -> None:
    """Landmarks that are missing, degenerate or absurd: the face is covered, with the reason."""
    result = run(scene, [Face(Box(40, 40, 50, 50), 0.8, landmarks)], embedder)
    (face,) = result.faces
    assert face.status is FaceStatus.REDACTED
    assert reason in face.warnings[0]
    assert not np.array_equal(result.pixels[45:85, 45:85], scene[45:85, 45:85])


def test_faces_over_the_limit_are_covered(scene: Pixels, embedder: DlibFaceEmbedder) -> None:
    """The largest faces up to the limit are replaced, the rest covered; the order stays."""
    result = run(scene, THREE, embedder, max_faces=2)
    assert [face.status.value for face in result.faces] == ["redacted", "replaced", "replaced"]
    assert "more than 2 faces, the limit" in result.faces[0].warnings[0]
    assert touched(scene, result, THREE[0]) > 5


def test_only_the_largest_is_replaced_where_asked(scene: Pixels, embedder: DlibFaceEmbedder) -> None:
    """The others are left as they were, and counted."""
    result = run(scene, THREE, embedder, only_largest=True)
    (face,) = result.faces
    assert face.face == THREE[1]
    assert result.left_alone == 2
    assert touched(scene, result, THREE[0]) == 0


def test_a_photo_without_faces_comes_back_unchanged(scene: Pixels, embedder: DlibFaceEmbedder) -> None:
    """A detector that finds nothing: no faces, the same pixels."""
    for only_largest in (False, True):
        result = run(scene, [], embedder, only_largest=only_largest)
        assert result.faces == ()
        assert np.array_equal(result.pixels, scene)


@pytest.mark.parametrize("slots", [1, 2])
def test_progress_counts_faces_and_steps(
    tiny: Checkpoint, scene: Pixels, embedder: DlibFaceEmbedder, slots: int
) -> None:
    """The callback sees every step of every face, only forward, to the last step of the last face."""
    seen: list[tuple[int, int, int, int]] = []
    with Engine(tiny, slots=slots) as engine:
        Pipeline(engine, FoundBefore(THREE[:2]), embedder).anonymize(
            scene, Sampling(seed=1, steps=2), on_step=lambda *counts: seen.append(counts)
        )
    assert all((faces, steps) == (2, 2) for _, faces, _, steps in seen)
    done = [(face - 1) * steps + step for face, _, step, steps in seen]
    assert done == sorted(done)
    assert set(done) == set(range(5))
    assert seen[-1] == (2, 2, 2, 2)


def test_a_stop_is_not_taken_for_a_failed_face(
    tiny: Checkpoint, scene: Pixels, embedder: DlibFaceEmbedder
) -> None:
    """A photo that is stopped ends with all its faces; it does not cover one and go on."""
    steps = 0

    def stop(face: int, _faces: int, done: int, _steps: int) -> None:
        nonlocal steps
        steps += 1
        if (face, done) == (1, 3):
            raise StoppedError("enough")

    with Engine(tiny, slots=3) as engine:
        with pytest.raises(StoppedError, match="enough"):
            Pipeline(engine, FoundBefore(THREE), embedder).anonymize(
                scene, Sampling(seed=1, steps=50), on_step=stop
            )
        after = steps
        engine.warm_up()  # a turn of the engine later, nothing of the photo is left
        assert engine.counters().live == engine.counters().waiting == 0
    assert steps == after


def test_a_failed_device_is_not_taken_for_a_failed_face(scene: Pixels, embedder: DlibFaceEmbedder) -> None:
    """The photo is not made, and the other faces are not waited for: somebody else may make it."""
    others = []

    def begin_face(face: Image.Image, seed: int, on_step: OnStep) -> Made:
        def fail() -> Image.Image:
            raise DeviceError("an illegal memory access was encountered")

        others.append(Made(fail) if seed == face_seed(7, 1) else inverted(face, seed, on_step))
        return others[-1]

    with pytest.raises(DeviceError, match="illegal memory access"):
        run(scene, THREE, embedder, begin_face=begin_face)
    assert all(face.canceled for face in others)


def test_parameters_out_of_range_are_no_failed_faces(
    tiny: Checkpoint, scene: Pixels, embedder: DlibFaceEmbedder
) -> None:
    """The sentence goes to the caller, and nothing is covered."""
    pipeline = Pipeline(Engine(tiny, slots=1), FoundBefore(THREE), embedder)
    with pytest.raises(ParameterError, match="steps is 1001"):
        pipeline.anonymize(scene, Sampling(seed=1, steps=1001))


def test_a_source_without_a_face_is_an_error(
    tiny: Checkpoint, scene: Pixels, embedder: DlibFaceEmbedder
) -> None:
    """A swap needs an identity to give."""
    with pytest.raises(NoFaceError, match="no face was found in the picture that gives the identity"):
        Pipeline(Engine(tiny, slots=1), FoundBefore([]), embedder).swap(
            scene, scene, Sampling(seed=1, steps=1)
        )


def test_an_unchanged_face_is_possibly_recognizable(embedder: DlibFaceEmbedder) -> None:
    """The identity check warns where the new face is the old one, and not where it is another picture."""
    pixels = read_photo(PHOTO.read_bytes()).pixels
    face = Face(
        Box(175, 60, 100, 120),
        1.0,
        Landmarks((203, 115), (246, 111), (227, 140), (207, 158), (247, 156)),
    )
    same = run(pixels, [face], embedder, begin_face=lambda image, _seed, _on_step: Made(lambda: image))
    (kept,) = same.faces
    assert kept.identity_distance is not None
    assert kept.identity_distance < 0.3
    assert kept.warnings == ("possibly recognizable",)
    (changed,) = run(pixels, [face], embedder).faces
    assert changed.identity_distance is not None
    assert changed.identity_distance > kept.identity_distance


def test_an_aligned_picture_is_one_face(tiny: Checkpoint, scene: Pixels, embedder: DlibFaceEmbedder) -> None:
    """With `aligned` nothing is looked for: the whole picture is the face, in the model's resolution."""
    with Engine(tiny, slots=1) as engine:
        made = Pipeline(engine, FoundBefore([]), embedder).anonymize(
            scene, Sampling(seed=3, steps=1), faces=Faces.ALIGNED
        )
    assert made.photo.pixels.shape == (64, 64, 3)
    (face,) = made.photo.faces
    assert (face.status, face.seed) == (FaceStatus.REPLACED, 3)
