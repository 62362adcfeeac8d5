"""The identity network: the same person stays near, and broken weights are named."""

import dataclasses
import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_alignment import ASTRONAUT, photo

from model.errors import AlignmentError, CheckpointError
from model.faces.alignment import Pixels
from model.faces.face import Landmarks
from model.faces.identity import WEIGHTS, DlibFaceEmbedder, FaceEmbedder


@pytest.fixture(scope="module")
def embedder() -> FaceEmbedder:
    """Return the network, loaded once."""
    return DlibFaceEmbedder()


def jpeg(pixels: Pixels) -> Pixels:
    """Return the picture after a JPEG of quality 20."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=20)
    return np.asarray(Image.open(file))


def test_numbers_are_the_networks(embedder: FaceEmbedder) -> None:
    """The replayed network gives these numbers for the sample; a wrong layer changes all of them."""
    embedding = embedder.embed(photo(), ASTRONAUT)
    assert embedding.shape == (128,)
    assert embedding.dtype == np.float32
    assert embedding[:4] == pytest.approx([-0.054, 0.022, 0.022, -0.062], abs=2e-3)
    assert np.array_equal(embedding, embedder.embed(photo(), ASTRONAUT))


@pytest.mark.parametrize("change", ["jpeg", "blur", "grey", "small", "dark"])
def test_the_same_person_stays_near(embedder: FaceEmbedder, change: str) -> None:
    """JPEG, blur, grey, half the size and half the light leave the sample far below the threshold."""
    pixels = photo()
    changed = {
        "jpeg": jpeg(pixels),
        "blur": np.asarray(cv2.GaussianBlur(pixels, (0, 0), 1.5), dtype=np.uint8),
        "grey": np.asarray(Image.fromarray(pixels).convert("L").convert("RGB")),
        "small": np.asarray(Image.fromarray(pixels).resize((256, 256)).resize((512, 512))),
        "dark": pixels // 2,
    }[change]
    distance = embedder.distance(embedder.embed(pixels, ASTRONAUT), embedder.embed(changed, ASTRONAUT))
    assert 0 < distance < 0.45


def test_a_turned_photo_is_the_same_person(embedder: FaceEmbedder) -> None:
    """The crop follows the landmarks: a photo turned by 90 degrees gives the same numbers."""
    points = [(512 - y, x) for x, y in dataclasses.astuple(ASTRONAUT)]
    turned = np.rot90(photo(), -1).copy()
    distance = embedder.distance(
        embedder.embed(photo(), ASTRONAUT), embedder.embed(turned, Landmarks(*points))
    )
    assert distance < 0.05


def test_what_is_no_face_is_far_away(embedder: FaceEmbedder) -> None:
    """Grey and noise lie beyond the threshold from a face."""
    face = embedder.embed(photo(), ASTRONAUT)
    noise = np.random.default_rng(4711).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    for other in (np.full((512, 512, 3), 128, dtype=np.uint8), noise):
        assert embedder.distance(face, embedder.embed(other, ASTRONAUT)) > embedder.threshold


def test_degenerate_landmarks(embedder: FaceEmbedder) -> None:
    """Landmarks that no face has are an AlignmentError here too."""
    with pytest.raises(AlignmentError):
        embedder.embed(photo(), Landmarks(*[(1.0, 1.0)] * 5))


def test_absent_and_cut_weights(tmp_path: Path) -> None:
    """A folder without the files, and a file cut short or too long, are named; nothing is half loaded."""
    with pytest.raises(CheckpointError, match="cannot be read"):
        DlibFaceEmbedder(tmp_path)
    shutil.copy(WEIGHTS / "face_recognition_model-weights_manifest.json", tmp_path)
    whole = (WEIGHTS / "face_recognition_model.bin").read_bytes()
    (tmp_path / "face_recognition_model.bin").write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="ends inside"):
        DlibFaceEmbedder(tmp_path)
    (tmp_path / "face_recognition_model.bin").write_bytes(whole + b"\x00")
    with pytest.raises(CheckpointError, match="its manifest names"):
        DlibFaceEmbedder(tmp_path)
