"""API keys: who may call, and whose jobs one sees."""

import hashlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import FACE_ANON, PHOTO, ROOT, Alone, serve_alone
from fastapi.testclient import TestClient
from pydantic import SecretStr
from test_waiting import finish, start

from jobs.changes import Changes
from jobs.store import JobStore, connect
from service.app import create_app
from service.keys import KeysError, read_keys
from service.settings import Settings

ALICE, BOB, HASHED = "alice-key-0123456789", "bob-key-0123456789", "carol-key-0123456789"
FILES = {"image": PHOTO.read_bytes()}
FORM = {"steps": "1", "faces": "aligned"}


def bearer(key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """Run a service with Alice's key in the environment, Bob's and a hashed one in a file."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    digest = hashlib.sha256(HASHED.encode()).hexdigest()
    file.write_text(f"# keys\n\nbob:{BOB}\ncarol:sha256:{digest}\n")
    file.chmod(0o600)
    with serve_alone(api_keys=f"alice:{ALICE}", api_keys_file=file) as running:
        yield running


@pytest.fixture
def api(closed: Alone) -> Iterator[httpx.Client]:
    """Return a client without a key."""
    with httpx.Client(base_url=closed.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        bearer(ALICE),
        bearer(BOB),
        bearer(HASHED),
        {"X-API-Key": ALICE},
        {"Authorization": f"bearer  {ALICE}"},
        {"Authorization": "Basic Z2F0ZXdheTpzZWNyZXQ=", "X-API-Key": ALICE},
    ],
)
def test_a_key_opens(api: httpx.Client, headers: dict[str, str]) -> None:
    """From the environment or the file, plain or hashed there, in either header."""
    assert api.post("/anonymize", files=FILES, data=FORM, headers=headers).status_code == 202


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "key_missing"),
        ({"Authorization": "Bearer"}, "key_missing"),
        ({"Authorization": f"Basic {ALICE}"}, "key_missing"),
        (bearer(ALICE[:-1]), "key_wrong"),
        (bearer(ALICE + "0"), "key_wrong"),
        (bearer(f"alice:{ALICE}"), "key_wrong"),
        (bearer(hashlib.sha256(HASHED.encode()).hexdigest()), "key_wrong"),
        ({"X-API-Key": "nobody's"}, "key_wrong"),
        ({"Authorization": f"Bearer {BOB[:-1]}", "X-API-Key": BOB}, "key_wrong"),
    ],
)
@pytest.mark.parametrize("path", ["/anonymize", "/swap", "/jobs/0/cancel"])
def test_without_a_right_key_nothing_happens(
    api: httpx.Client, closed: Alone, path: str, headers: dict[str, str], code: str
) -> None:
    """401 as a problem with a challenge, and nothing is queued."""
    before = closed.store.queued()
    answer = api.post(path, files=FILES, data=FORM, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert closed.store.queued() == before


def test_a_refused_upload_is_not_read(closed: Alone) -> None:
    """The 401 comes before the body: nobody without a key can make the service take in an upload."""
    host, _, port = closed.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = "POST /anonymize HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_health_stays_open_and_the_contract_tells_of_keys(api: httpx.Client) -> None:
    """Probes and the documentation need no key; every closed operation says that it needs one."""
    assert api.get("/healthz").status_code == 200
    assert api.get("/readyz").json()["code"] == "not_ready"
    assert api.get("/docs").status_code == 200
    document = api.get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"HTTPBearer", "APIKeyHeader"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            closed = path.startswith(("/anonymize", "/swap", "/jobs"))
            assert ("security" in operation) == closed, path
            assert ("401" in operation["responses"]) == closed, path


def test_a_job_is_there_for_its_own_key_only(api: httpx.Client, closed: Alone) -> None:
    """To every other key it is the same 404 as no job at all, whatever is asked; nothing is changed."""
    job = api.post("/anonymize", files=FILES, data=FORM, headers=bearer(ALICE)).json()
    finish(closed.store, start(closed.store, job["id"]))
    nothing = "/jobs/00000000000000000000000000000000"
    for method, path in [
        ("GET", ""),
        ("GET", "?wait=1"),
        ("GET", "/events"),
        ("GET", "/result"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ]:
        headers = {**bearer(BOB), "X-Request-ID": "1"}
        others = api.request(method, f"/jobs/{job['id']}{path}", headers=headers)
        none = api.request(method, f"{nothing}{path}", headers=headers)
        assert (others.status_code, others.json()["code"]) == (404, "job_not_found")
        assert others.content == none.content
        assert {**others.headers, "date": ""} == {**none.headers, "date": ""}
    assert api.get(f"/jobs/{job['id']}/result", headers=bearer(ALICE)).content == b"picture"
    assert api.delete(f"/jobs/{job['id']}", headers=bearer(ALICE)).status_code == 204


def test_an_idempotency_key_belongs_to_its_caller(api: httpx.Client) -> None:
    """Two callers may use the same one; each gets its own job, again and again."""

    def send(key: str) -> str:
        headers = {**bearer(key), "Idempotency-Key": "order 1"}
        job_id: str = api.post("/anonymize", files=FILES, data=FORM, headers=headers).json()["id"]
        return job_id

    alice, bob = send(ALICE), send(BOB)
    assert alice != bob
    assert (send(ALICE), send(BOB)) == (alice, bob)


def test_without_keys_everybody_may_call_and_the_start_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """An open service warns; one with keys names the callers, and never a key."""
    caplog.set_level("INFO")
    nowhere = "redis://127.0.0.1:1"
    for listed, said in [("", "no API key is set"), (f"alice:{ALICE},bob:{BOB}", "API keys of alice, bob")]:
        settings = Settings(api_keys=SecretStr(listed))
        with TestClient(create_app(JobStore(connect(nowhere)), Changes(nowhere), settings)) as api:
            document = api.get("/openapi.json").json()
            assert ("securitySchemes" in document["components"]) == bool(listed)
        assert said in caplog.text
    assert ALICE not in caplog.text + repr(settings)


@pytest.mark.parametrize(
    "listed", ["secret", "alice:", ":secret", "a b:secret", "alice:sha256:12", "alice:s\u00e4cret"]
)
def test_what_is_no_key_is_said_without_it(listed: str) -> None:
    """The sentence names the place and the form, and not what was there."""
    with pytest.raises(KeysError, match="FACE_ANON_API_KEYS: ") as raised:
        read_keys(f"bob:{BOB},{listed}", None)
    assert listed not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_service_with_unreadable_keys_does_not_start(tmp_path: Path) -> None:
    """Exit code 2 with a sentence, where it would otherwise be open."""
    result = subprocess.run(
        [*FACE_ANON, "service", "--port", "0"],
        cwd=ROOT,
        env={"FACE_ANON_API_KEYS_FILE": str(tmp_path / "missing")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 2
    assert "cannot be read" in result.stderr


def test_a_file_without_a_key_is_an_error(tmp_path: Path) -> None:
    """An operator who names a file does not want an open service."""
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(KeysError, match="has no API key"):
        read_keys("", tmp_path / "keys")


def test_a_file_that_others_may_open_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its mode; a short key is warned about too, by its caller's name."""
    file = tmp_path / "keys"
    file.write_text("alice:short\n")
    file.chmod(0o644)
    assert read_keys("", file).names == ["alice"]
    assert "mode 644" in caplog.text
    assert "key of alice has fewer than 16" in caplog.text
    assert ":short" not in caplog.text
