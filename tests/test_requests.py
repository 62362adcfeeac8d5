"""What every request goes through: ids in and out, security headers, the gateway's word, CORS, numbers."""

import json
import logging
import re
from collections.abc import Iterator

import pytest
from conftest import InProcess, serve_in_process
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from test_keys import ALICE, FILES, FORM, bearer

from jobs.contract import Model
from jobs.logs import JsonLines


@pytest.fixture(scope="module")
def open_service() -> Iterator[InProcess]:
    """Run an open service without a worker."""
    with serve_in_process() as running:
        yield running


def request_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """Return the log's lines on requests, as they would be written."""
    formatter = JsonLines("test")
    return [json.loads(formatter.format(record)) for record in caplog.records if record.message == "request"]


@pytest.mark.parametrize("sent", ["5f0c6a2e-1", "a.b:c_D-1", "x" * 128])
def test_a_callers_request_id_comes_back(open_service: InProcess, sent: str) -> None:
    """In the header, in a problem's body, and with the job to the worker."""
    answer = open_service.api.get("/jobs/0", headers={"X-Request-ID": sent})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == sent
    job = open_service.api.post("/anonymize", files=FILES, data=FORM, headers={"X-Request-ID": sent}).json()
    record = open_service.store.read(job["id"])
    assert record
    assert record.request.request_id == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 129, "two words", "a@example.org", '"}{"'])
def test_a_request_without_a_usable_id_gets_one(open_service: InProcess, sent: str | None) -> None:
    """128 random bits, another one each time; what is no id is not repeated."""
    headers = {} if sent is None else {"X-Request-ID": sent}
    ids = {open_service.api.get("/healthz", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", made) for made in ids)


def test_a_request_is_one_line_of_the_log(open_service: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    """With its id, job, route, status, sizes and time; a probe's is for debugging only."""
    caplog.set_level(logging.INFO)
    headers = {"X-Request-ID": "the-request"}
    answer = open_service.api.post("/anonymize", files=FILES, data=FORM, headers=headers)
    open_service.api.get("/healthz")
    (line,) = request_lines(caplog)
    assert {name: line[name] for name in ("request_id", "method", "route", "status", "job")} == {
        "request_id": "the-request",
        "method": "POST",
        "route": "/anonymize",
        "status": 202,
        "job": answer.json()["id"],
    }
    assert line["received_bytes"] > len(FILES["image"])
    assert line["sent_bytes"] == len(answer.content)
    assert line["ms"] > 0
    assert "key" not in line


def test_an_unexpected_error_is_a_problem_and_tells_nothing(
    open_service: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """500 with the request's id; the log has the places in the code, and not what could not be read."""
    job = open_service.api.post("/anonymize", files=FILES, data=FORM).json()
    open_service.redis.hset(f"face-anon:job:{job['id']}", "request", '{"reference": "Jane Doe"}')
    answer = open_service.api.get(job["links"]["self"], headers={"X-Request-ID": "broken"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "broken"
    lines = [JsonLines("test").format(record) for record in caplog.records]
    (told,) = [json.loads(line) for line in lines if "exception" in json.loads(line)]
    assert told["request_id"] == "broken"
    assert told["exception"][0]["type"] == "pydantic_core._pydantic_core.ValidationError"
    assert any("jobs/store.py" in place for place in told["exception"][0]["at"])
    assert "Jane Doe" not in "".join(lines) + answer.text


def test_every_answer_has_security_headers(open_service: InProcess) -> None:
    """Pages of ours load nothing from elsewhere, stand in no frame, and no type is guessed."""
    for path in ("/healthz", "/nowhere", "/openapi.json"):
        headers = open_service.api.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_the_documentation_is_made_of_our_own_files() -> None:
    """Each script, style and picture of `/docs` is ours, also behind a root path."""
    with serve_in_process(root_path="/faces") as running:
        answer = running.api.get("/docs")
        assert answer.status_code == 200
        loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
        assert len(loaded) == 3
        assert all(address.startswith("/faces/docs/") for address in loaded)
        assert {running.api.get(address).status_code for address in loaded} == {200}
        assert "://" not in answer.headers["content-security-policy"]


def submitted(running: InProcess, headers: dict[str, str]) -> dict[str, str]:
    """Submit a job with these headers and return its links; the Location is the same."""
    answer = running.api.post("/anonymize", files=FILES, data=FORM, headers=headers)
    links: dict[str, str] = answer.json()["links"]
    assert answer.headers["location"] == links["self"]
    return links


def test_a_root_path_is_in_every_link() -> None:
    """Whether the gateway takes it away or leaves it, and in the OpenAPI document's servers."""
    with serve_in_process(root_path="/faces") as running:
        links = submitted(running, {})
        assert all(link.startswith("/faces/jobs/") for link in links.values())
        assert running.api.get(links["self"]).json()["links"] == links
        assert running.api.get(links["self"].removeprefix("/faces")).json()["links"] == links
        assert running.api.get("/faces/openapi.json").json()["servers"] == [{"url": "/faces"}]


def test_forwarded_headers_of_trusted_proxies_only() -> None:
    """From the gateway's network the prefix counts, where it is a path; from anywhere else it does not."""
    with serve_in_process(trusted_proxies="10.0.0.0/8, 192.0.2.7") as running:
        for peer, prefix, expected in [
            ("10.1.2.3", "/a/b", "/a/b"),
            ("192.0.2.7", "/faces/", "/faces"),
            ("192.0.2.8", "/faces", ""),
            ("testclient", "/faces", ""),
            ("10.1.2.3", "//evil.example", ""),
            ("10.1.2.3", "/a b", ""),
            ("10.1.2.3", "https://evil.example", ""),
            ("10.1.2.3", '/"><script>', ""),
        ]:
            running.api._transport.client = (peer, 1)  # type: ignore[attr-defined]  # noqa: SLF001
            links = submitted(running, {"X-Forwarded-Prefix": prefix, "X-Forwarded-Proto": "https"})
            assert links["self"].rpartition("/jobs/")[0] == expected, (peer, prefix)


def test_other_origins_may_call_only_where_they_are_set(open_service: InProcess) -> None:
    """Without the setting no CORS header at all; with it the callers' headers pass, and need their key."""
    asked = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,idempotency-key,prefer",
    }
    refused = open_service.api.options("/anonymize", headers=asked)
    assert refused.status_code == 405
    assert not [name for name in refused.headers if name.startswith("access-control")]
    keys = SecretStr(f"alice:{ALICE}")
    origins = "https://a.example, https://b.example"
    with serve_in_process(cors_origins=origins, api_keys=keys) as running:
        allowed = running.api.options("/anonymize", headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert running.api.options("/anonymize", headers={**asked, "Origin": "null"}).status_code == 400
        answer = running.api.get("/jobs/0", headers={"Origin": "https://b.example"})
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == "https://b.example"
        assert "ETag" in answer.headers["access-control-expose-headers"]


WORKER_METRICS = b"""\
# HELP face_anon_jobs_total Jobs done.
# TYPE face_anon_jobs_total counter
face_anon_jobs_total{status="succeeded"} 3
# HELP face_anon_stage_seconds Time of a stage.
# TYPE face_anon_stage_seconds histogram
face_anon_stage_seconds_bucket{stage="sample",le="1"} 1
face_anon_stage_seconds_bucket{stage="sample",le="+Inf"} 2
face_anon_stage_seconds_sum{stage="sample"} 4
face_anon_stage_seconds_count{stage="sample"} 2
"""


def samples(running: InProcess) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Scrape `/metrics` and return each sample; every family is declared once."""
    answer = running.api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    declared = re.findall(r"^# TYPE (\S+)", answer.text, re.MULTILINE)
    assert len(declared) == len(set(declared))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_are_those_of_the_service_and_of_each_worker() -> None:
    """Requests by route and status, the queue, and the workers' own, by worker; no job, caller or file."""
    with serve_in_process() as running:
        for name in ("one", "two"):
            running.store.report_metrics(name, WORKER_METRICS)
            running.store.announce(name, Model(name="m", revision="1", resolution=64, demonstration=False))
        running.store.report_metrics("broken", b"what is this {")
        job = running.api.post("/anonymize", files={"image": ("jane.png", FILES["image"])}, data=FORM).json()
        running.api.get(job["links"]["self"])
        running.api.get("/no/such/place")
        found = samples(running)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("face_anon_http_requests_total", method="POST", route="/anonymize", status="202") == 1
    assert value("face_anon_http_requests_total", method="GET", route="/jobs/{job_id}", status="200") == 1
    assert value("face_anon_http_requests_total", method="GET", route="-", status="404") == 1
    assert value("face_anon_http_request_seconds_count", route="/anonymize") == 1
    assert value("face_anon_http_received_bytes_total", route="/anonymize") > len(FILES["image"])
    assert value("face_anon_queue_jobs") == 1
    assert value("face_anon_queue_oldest_seconds") >= 0
    assert value("face_anon_workers_ready") == 2
    assert value("face_anon_open_waits") == 0
    assert value("face_anon_redis_up") == 1
    for name in ("one", "two"):
        assert value("face_anon_jobs_total", status="succeeded", worker=name) == 3
        assert value("face_anon_stage_seconds_bucket", stage="sample", le="+Inf", worker=name) == 2
    assert job["id"] not in str(found)
    assert "jane" not in str(found)


def test_metrics_may_want_a_key() -> None:
    """Open by default, also where the service is closed; behind a key where that is set."""
    keys = SecretStr(f"alice:{ALICE}")
    with serve_in_process(api_keys=keys) as running:
        assert running.api.get("/metrics").status_code == 200
        closed = running.another(api_keys=keys, metrics_need_key=True)
        assert closed.get("/metrics").status_code == 401
        assert closed.get("/metrics", headers=bearer(ALICE)).status_code == 200


def test_metrics_without_redis_are_the_process_own() -> None:
    """The scrape succeeds and says that Redis is away."""
    with serve_in_process() as running:
        running.redis.shutdown(nosave=True)
        assert samples(running)["face_anon_redis_up", frozenset()] == 0
