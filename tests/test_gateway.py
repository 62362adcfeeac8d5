"""The gateways of `docs/gateway.md`, run as the document says, in front of a real service."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import PHOTO, ROOT, Alone, eventually, serve_alone
from test_waiting import Stream, finish, start

NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; {snippet} }}
}}
"""
CADDY = "{{\n admin off\n auto_https off\n}}\nhttp://127.0.0.1:{port} {{\n{snippet}\n}}\n"
FORM = {"steps": "1", "faces": "aligned"}


@dataclass(frozen=True)
class Behind:
    """A service behind a gateway: a client of the gateway, and the service."""

    api: httpx.Client
    service: Alone


@pytest.fixture(scope="module")
def trusting() -> Iterator[Alone]:
    """Run a service that believes what gateways on this machine say."""
    with serve_alone(trusted_proxies="127.0.0.1", max_upload_bytes=20_000_000) as running:
        yield running


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["nginx", "caddy"])
def behind(request: pytest.FixtureRequest, trusting: Alone, tmp_path: Path) -> Iterator[Behind]:
    """Run the gateway with the snippet of the document, its service's address replaced."""
    command = shutil.which(request.param)
    if command is None:
        pytest.skip(f"{request.param} is not installed")
    document = (ROOT / "docs" / "gateway.md").read_text()
    (snippet,) = re.findall(rf"```{request.param}\n(.*?)```", document, re.DOTALL)
    snippet = snippet.replace("127.0.0.1:8000", trusting.url.removeprefix("http://"))
    port = free_port()
    config = tmp_path / "config"
    template = NGINX if request.param == "nginx" else CADDY
    config.write_text(template.format(folder=tmp_path, port=port, snippet=snippet))
    arguments = {
        "nginx": ["-c", str(config), "-p", str(tmp_path)],
        "caddy": ["run", "--adapter", "caddyfile", "--config", str(config)],
    }
    process = subprocess.Popen(
        [command, *arguments[request.param]],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/faces", timeout=30) as api:

            def answers() -> bool:
                try:
                    return api.get("/healthz").status_code == 200
                except httpx.TransportError:
                    return False

            assert eventually(answers)
            yield Behind(api, trusting)
    finally:
        process.terminate()
        process.wait(30)


def test_the_whole_way_through_a_gateway(behind: Behind) -> None:
    """Upload, links under the gateway's path, events as they come, the result; a request id comes back."""
    host = httpx.Client(base_url=f"{behind.api.base_url}".removesuffix("/faces/"), timeout=30)
    with host:
        answer = behind.api.post("/anonymize", files={"image": PHOTO.read_bytes()}, data=FORM)
        assert answer.status_code == 202
        job = answer.json()
        assert answer.headers["location"] == job["links"]["self"] == f"/faces/jobs/{job['id']}"
        assert answer.headers["x-request-id"]
        with host.stream("GET", job["links"]["events"]) as events:
            stream = Stream(events)
            assert stream.next_job()["status"] == "queued"
            request = start(behind.service.store, job["id"])  # only now: the first event came unbuffered
            assert stream.next_job()["started_at"]
            finish(behind.service.store, request)
            assert json.loads(stream.next_part()["data"])["status"] == "succeeded"
        ended = host.get(job["links"]["self"]).json()
        assert ended["result"]["url"] == f"/faces/jobs/{job['id']}/result"
        assert host.get(ended["result"]["url"]).content == b"picture"
        assert host.get("/faces/openapi.json").json()["servers"] == [{"url": "/faces"}]
        assert host.get("/faces/").status_code == 200


def test_a_long_poll_and_a_large_upload_pass(behind: Behind) -> None:
    """The service's own limit answers, as a problem, for an upload that is over it; a wait is waited."""
    job = behind.api.post("/anonymize", files={"image": PHOTO.read_bytes()}, data=FORM).json()
    waited = behind.api.get(f"/jobs/{job['id']}", params={"wait": 2})
    assert waited.elapsed.total_seconds() >= 2
    assert waited.json()["status"] == "queued"
    large = behind.api.post("/anonymize", files={"image": bytes(20_000_001)})
    assert (large.status_code, large.json()["code"]) == (413, "upload_too_large")


def test_a_callers_word_on_its_path_is_not_passed_on(behind: Behind) -> None:
    """The gateway replaces what a caller says of the prefix."""
    answer = behind.api.post(
        "/anonymize",
        files={"image": PHOTO.read_bytes()},
        data=FORM,
        headers={"X-Forwarded-Prefix": "/elsewhere"},
    )
    assert answer.headers["location"].startswith("/faces/jobs/")
