"""What a request does not say is as the checkpoint is best used, and is echoed."""

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import InProcess, serve_in_process
from test_keys import FILES

from jobs.contract import Defaults, Model, Sampler

FAST = Model(
    name="fast",
    revision="1",
    resolution=64,
    demonstration=False,
    defaults=Defaults(d=1.0, sampler=Sampler.DDIM, steps=10, guidance_scale=2.5),
)
PUBLISHED = {"d": 1.25, "sampler": "ddpm", "steps": 200, "guidance_scale": 4.0}


@pytest.fixture
def running() -> Iterator[InProcess]:
    """Run a service without a worker."""
    with serve_in_process() as running:
        yield running


def parameters(running: InProcess, **form: str) -> dict[str, Any]:
    """Submit the sample photo and return what the job is made with."""
    job = running.api.post("/anonymize", files=FILES, data=form).json()
    filled: dict[str, Any] = job["parameters"]
    return {name: filled[name] for name in PUBLISHED}


def test_defaults_are_the_checkpoints(running: InProcess) -> None:
    """Those published until a worker has said what it has loaded; its own then, also while it is away."""
    assert parameters(running) == PUBLISHED
    running.store.announce("worker", FAST)
    own = {"d": 1.0, "sampler": "ddim", "steps": 10, "guidance_scale": 2.5}
    assert parameters(running) == own
    running.store.withdraw("worker")
    assert parameters(running) == own
    files = {"source": FILES["image"], "driving": FILES["image"]}
    swapped = running.api.post("/swap", files=files).json()["parameters"]
    assert {name: swapped[name] for name in own} == {**own, "d": None}
    assert running.redis.ttl("face-anon:model") > 7 * 24 * 3600


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 200), ("ddim", 10), ("dpmpp_2m", 25), ("unipc", 20)])
def test_another_sampler_has_its_usual_steps(running: InProcess, sampler: str, steps: int) -> None:
    """The checkpoint's steps are those of its own sampler; what is sent counts in any case."""
    running.store.announce("worker", FAST)
    assert parameters(running, sampler=sampler)["steps"] == steps
    sent = {"sampler": sampler, "steps": "7", "guidance_scale": "1.5", "d": "0"}
    assert parameters(running, **sent) == {"sampler": sampler, "steps": 7, "guidance_scale": 1.5, "d": 0}


def test_a_repeated_request_is_the_same_under_other_defaults(running: InProcess) -> None:
    """The Idempotency-Key stands for what was sent; the job stays as it was made."""

    def send(**form: str) -> Any:  # noqa: ANN401  an answer's JSON
        return running.api.post("/anonymize", files=FILES, data=form, headers={"Idempotency-Key": "1"}).json()

    first = send()
    running.store.announce("worker", FAST)
    assert send()["parameters"] == first["parameters"]
    assert send()["id"] == first["id"]
    assert send(steps="200")["code"] == "idempotency_key_reused"


def test_the_contract_says_so(running: InProcess) -> None:
    """No default is promised in the OpenAPI document that may be another; the words name both."""
    schemas = running.api.get("/openapi.json").json()["components"]["schemas"]
    (name,) = [name for name in schemas if "anonymize" in name]
    fields = schemas[name]["properties"]
    for field in PUBLISHED:
        assert "default" not in fields[field], field
        assert "Default: the checkpoint's" in fields[field]["description"]
    assert "dpmpp_2m 25" in fields["steps"]["description"]
    assert schemas[name]["required"] == ["image"]
