"""Requests that abuse HTTP and `multipart/form-data`, byte by byte, for `test_hostile_requests` to send."""

from collections.abc import Iterator
from dataclasses import dataclass

from hostile_cuts import picture, saved

PNG = saved(picture(), "PNG")
MEGA = 1_000_000


@dataclass(frozen=True)
class Request:
    """The bytes of one request, and the codes or the status it may end with."""

    name: str
    content: bytes
    ends: frozenset[str]
    leaves: bool = False
    """Whether the sender goes away when it has sent that."""


def part(headers: bytes, body: bytes, boundary: bytes = b"x") -> bytes:
    """Return one part of a multipart body."""
    return b"--" + boundary + b"\r\n" + headers + b"\r\n\r\n" + body + b"\r\n"


def file_part(body: bytes, name: bytes = b'name="image"; filename="a.png"') -> bytes:
    """Return a part that is a file."""
    return part(b"Content-Disposition: form-data; " + name, body)


def field(name: bytes, value: bytes) -> bytes:
    """Return a part that is a field."""
    return part(b'Content-Disposition: form-data; name="' + name + b'"', value)


ONE_STEP = field(b"steps", b"1")
IMAGE = file_part(PNG)
CLOSE = b"--x--\r\n"
GOOD = IMAGE + ONE_STEP + CLOSE

ACCEPTED, BROKEN = frozenset({"queued"}), frozenset({"bad_request"})
INVALID, NOT_HTTP = frozenset({"invalid_parameter"}), frozenset({"400"})
LARGE, CLOSED = frozenset({"request_too_large"}), frozenset({"closed"})


def post(
    body: bytes,
    content_type: bytes | None = b"multipart/form-data; boundary=x",
    *,
    headers: bytes = b"",
    length: int | None = None,
    path: bytes = b"/anonymize",
) -> bytes:
    """Return a whole POST request; `length` is a Content-Length that is not true."""
    kind = b"" if content_type is None else b"Content-Type: " + content_type + b"\r\n"
    size = str(len(body) if length is None else length).encode()
    return (
        b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        + kind + headers + b"Content-Length: " + size + b"\r\n\r\n" + body
    )  # fmt: skip


def chunked(chunks: list[bytes], *, last: bytes = b"0\r\n\r\n") -> bytes:
    """Return a POST whose body has no length."""
    head = (
        b"POST /anonymize HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in chunks) + last


def hostile_requests() -> Iterator[Request]:
    """Yield every request."""
    yield from _content_types()
    yield from _bodies()
    yield from _file_names()
    yield from _parts()
    yield from _values()
    yield from _lengths()
    yield from _heads()


def _content_types() -> Iterator[Request]:
    yield Request("good", post(GOOD), ACCEPTED)
    yield Request("chunked", chunked([GOOD]), ACCEPTED)
    yield Request("chunked-by-the-byte", chunked([bytes([byte]) for byte in GOOD]), ACCEPTED)

    kind = b"multipart/form-data"
    yield Request("no-content-type", post(GOOD, None), INVALID)
    yield Request("no-boundary", post(GOOD, kind), BROKEN)
    yield Request("empty-boundary", post(GOOD, kind + b"; boundary="), BROKEN)
    yield Request("quoted-boundary", post(GOOD, kind + b'; boundary="x"'), ACCEPTED)
    yield Request("unclosed-quote", post(GOOD, kind + b'; boundary="x'), BROKEN | ACCEPTED | INVALID)
    yield Request("wrong-boundary", post(GOOD, kind + b"; boundary=y"), BROKEN | INVALID)
    yield Request("boundary-of-60-kb", post(GOOD, kind + b"; boundary=" + b"b" * 60_000), BROKEN | NOT_HTTP)
    yield Request("boundary-of-nul", post(GOOD, kind + b"; boundary=\0"), BROKEN | NOT_HTTP)
    yield Request("boundary-not-ascii", post(GOOD, kind + b"; boundary=\xff\xfe"), BROKEN)
    yield Request("two-boundaries", post(GOOD, kind + b"; boundary=y; boundary=x"), ACCEPTED | BROKEN)
    yield Request(
        "two-content-types",
        post(GOOD, kind + b"; boundary=y", headers=b"Content-Type: text/plain\r\n"),
        BROKEN | INVALID,
    )
    yield Request("json", post(b'{"image": "x"}', b"application/json"), INVALID)
    yield Request("broken-json", post(b"{", b"application/json"), INVALID)
    yield Request("text", post(b"image", b"text/plain"), INVALID)
    yield Request("raw-picture", post(PNG, b"image/png"), INVALID)
    yield Request("urlencoded", post(b"image=x&steps=1", b"application/x-www-form-urlencoded"), INVALID)
    fields = b"&".join(b"a%d=1" % number for number in range(5_000))
    yield Request("thousands-of-urlencoded", post(fields, b"application/x-www-form-urlencoded"), BROKEN)
    yield Request(
        "urlencoded-of-2-mb", post(b"a=" + b"x" * 2 * MEGA, b"application/x-www-form-urlencoded"), BROKEN
    )
    yield Request("mixed", post(GOOD, b"multipart/mixed; boundary=x"), INVALID)
    for charset in (
        b"utf-16",
        b"utf-7",
        b"idna",
        b"punycode",
        b"rot13",
        b"zlib",
        b"hex",
        b"undefined",
        b"nonsense",
        b"\xff",
    ):
        name = charset.decode("latin-1")
        ends = ACCEPTED | BROKEN | INVALID
        yield Request(f"charset-{name}", post(GOOD, kind + b"; boundary=x; charset=" + charset), ends)


def _bodies() -> Iterator[Request]:
    yield Request("no-body", post(b""), INVALID | BROKEN)
    yield Request("only-close", post(CLOSE), INVALID | BROKEN)
    yield Request("not-closed", post(IMAGE + ONE_STEP), BROKEN | ACCEPTED)
    yield Request("ends-in-headers", post(IMAGE[:40]), BROKEN | INVALID)
    yield Request("ends-in-file", post(IMAGE[:-40]), BROKEN | INVALID | frozenset({"broken_picture"}))
    yield Request("garbage-before", post(b"garbage\r\n" + GOOD), ACCEPTED | BROKEN)
    yield Request("garbage-after", post(GOOD + b"garbage" * 100), ACCEPTED | BROKEN)
    yield Request("newlines-only", post(GOOD.replace(b"\r\n", b"\n")), BROKEN)
    yield Request("no-disposition", post(part(b"Content-Type: image/png", PNG) + CLOSE), BROKEN)
    yield Request("no-name", post(file_part(PNG, b'filename="a.png"') + CLOSE), BROKEN)
    yield Request("no-filename", post(file_part(PNG, b'name="image"') + CLOSE), INVALID)
    yield Request(
        "empty-filename",
        post(file_part(PNG, b'name="image"; filename=""') + ONE_STEP + CLOSE),
        ACCEPTED | INVALID,
    )


def _file_names() -> Iterator[Request]:
    for filename in (
        b"../../../etc/passwd", b"C:\\\\boot.ini", b"a\0b.png", b"a.png.exe", b"\xff\xfe", b"x" * 5_000,
        b"CON",         b"<script>alert(1)</script>", b"$(id)", b"%00%0a", b"a; filename=b",
    ):  # fmt: skip
        named = file_part(PNG, b'name="image"; filename="' + filename + b'"')
        name = filename[:20].decode("latin-1")
        yield Request(f"filename-{name!r}", post(named + ONE_STEP + CLOSE), ACCEPTED | BROKEN)
    star = file_part(PNG, b"name=\"image\"; filename*=utf-8''%2e%2e%2fpasswd")
    yield Request("filename-star", post(star + ONE_STEP + CLOSE), ACCEPTED | INVALID)
    wrong_type = part(
        b'Content-Disposition: form-data; name="image"; filename="a"\r\nContent-Type: text/html', PNG
    )
    yield Request("wrong-type-by-name", post(wrong_type + ONE_STEP + CLOSE), ACCEPTED)
    encoded = part(
        b'Content-Disposition: form-data; name="image"; filename="a"\r\nContent-Transfer-Encoding: base64',
        b"aGVsbG8=",
    )
    yield Request("base64", post(encoded + CLOSE), frozenset({"not_a_picture"}))


def _parts() -> Iterator[Request]:
    yield Request("two-images", post(IMAGE * 2 + ONE_STEP + CLOSE), ACCEPTED)
    yield Request("two-steps", post(IMAGE + ONE_STEP * 2 + CLOSE), ACCEPTED | INVALID)
    yield Request("thousands-of-files", post(IMAGE * 1_001 + CLOSE), BROKEN)
    yield Request("thousands-of-fields", post(IMAGE + field(b"a", b"1") * 5_000 + CLOSE), BROKEN)
    yield Request("hundreds-of-files", post(IMAGE * 900 + ONE_STEP + CLOSE), ACCEPTED | BROKEN)
    yield Request(
        "unknown-fields", post(IMAGE + ONE_STEP + field(b"a", b"1") * 500 + CLOSE), ACCEPTED | INVALID
    )
    yield Request("field-of-2-mb", post(IMAGE + field(b"reference", b"x" * 2 * MEGA) + CLOSE), BROKEN)
    yield Request("field-of-1-mb", post(IMAGE + field(b"reference", b"x" * 1_000_000) + CLOSE), INVALID)
    yield Request("header-of-1-mb", post(part(b"X: " + b"x" * MEGA, b"") + GOOD), BROKEN)
    yield Request("header-name-of-1-mb", post(part(b"x" * MEGA + b": 1", b"") + GOOD), BROKEN)
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(10_000))
    yield Request(
        "part-of-10000-headers",
        post(part(many + b'Content-Disposition: form-data; name="a"', b"") + GOOD),
        BROKEN,
    )
    yield Request(
        "file-name-as-field", post(file_part(PNG, b'name="steps"; filename="a"') + IMAGE + CLOSE), INVALID
    )
    yield Request(
        "reference-as-file", post(file_part(PNG, b'name="reference"; filename="a"') + IMAGE + CLOSE), INVALID
    )
    yield Request("image-as-field", post(field(b"image", PNG) + CLOSE), INVALID)
    nested = part(
        b'Content-Disposition: form-data; name="image"\r\nContent-Type: multipart/mixed; boundary=y', IMAGE
    )
    yield Request("nested", post(nested + CLOSE), INVALID | BROKEN)


def _values() -> Iterator[Request]:
    for name, value in {
        "nul": b"\0", "nul-inside": b"1\0", "surrogate": b"\xed\xa0\x80", "latin-1": b"\xe9",
        "newline": b"1\n", "arabic-digits": b"\xd9\xa1", "long-number": b"9" * 5_000, "exponent": b"1e400",
        "hex": b"0x1", "empty": b"",
    }.items():  # fmt: skip
        for kind_of_field in (b"steps", b"seed", b"d", b"sampler"):
            sent = post(IMAGE + field(kind_of_field, value) + CLOSE)
            yield Request(f"{kind_of_field.decode()}-{name}", sent, ACCEPTED | INVALID)
        sent = post(IMAGE + ONE_STEP + field(b"reference", value) + CLOSE)
        yield Request(f"reference-{name}", sent, ACCEPTED | INVALID)


def _lengths() -> Iterator[Request]:
    yield Request("length-too-short", post(GOOD, length=len(GOOD) - 100), BROKEN | ACCEPTED | INVALID)
    yield Request("length-too-long", post(GOOD, length=len(GOOD) + 100), CLOSED, leaves=True)
    yield Request("length-negative", post(GOOD, length=-1), NOT_HTTP)
    yield Request("length-of-2-to-64", post(GOOD, length=2**64), NOT_HTTP | LARGE)
    yield Request("length-of-a-terabyte", post(GOOD, length=10**12), LARGE)
    yield Request("two-lengths", post(GOOD, headers=b"Content-Length: 5\r\n"), NOT_HTTP)
    smuggled = post(GOOD, headers=b"Transfer-Encoding: chunked\r\n")
    yield Request("length-and-chunked", smuggled, NOT_HTTP)
    yield Request("chunked-without-end", chunked([GOOD], last=b""), CLOSED, leaves=True)
    yield Request("chunk-size-wrong", chunked([GOOD], last=b"zz\r\n\r\n"), NOT_HTTP | CLOSED | BROKEN)
    yield Request(
        "chunk-size-of-2-to-80", chunked([GOOD], last=b"f" * 20 + b"\r\n"), NOT_HTTP | CLOSED | BROKEN
    )
    yield Request("chunked-60-mb", chunked([IMAGE[:100]] + [bytes(MEGA)] * 60), LARGE)
    yield Request("announced-60-mb", post(IMAGE + bytes(100), length=60 * MEGA), LARGE)


def _heads() -> Iterator[Request]:
    yield Request("expect-continue", post(GOOD, headers=b"Expect: 100-continue\r\n"), ACCEPTED)
    yield Request("gzip", post(GOOD, headers=b"Content-Encoding: gzip\r\n"), ACCEPTED | BROKEN)
    yield Request(
        "header-line-of-200-kb",
        post(GOOD, headers=b"X: " + b"x" * 200_000 + b"\r\n"),
        NOT_HTTP | ACCEPTED | frozenset({"431"}),
    )
    yield Request(
        "10000-header-lines",
        post(GOOD, headers=b"X: 1\r\n" * 10_000),
        NOT_HTTP | ACCEPTED | frozenset({"431"}),
    )
    yield Request("header-with-nul", post(GOOD, headers=b"X: a\0b\r\n"), NOT_HTTP | ACCEPTED)
    yield Request("path-traversal", post(GOOD, path=b"/../../etc/passwd"), frozenset({"not_found"}))
    yield Request("path-with-nul", post(GOOD, path=b"/jobs/%00/cancel"), frozenset({"job_not_found"}))
    yield Request("path-not-utf8", post(GOOD, path=b"/jobs/%ff%fe/cancel"), frozenset({"job_not_found"}))
    yield Request(
        "path-of-60-kb",
        post(GOOD, path=b"/jobs/" + b"a" * 60_000),
        NOT_HTTP | frozenset({"method_not_allowed", "414"}),
    )
    yield Request("query-wait-list", post(GOOD, path=b"/anonymize?wait=0&wait=0"), ACCEPTED | INVALID)
    yield Request(
        "idempotency-key-not-ascii", post(GOOD, headers=b"Idempotency-Key: \xff\xfe\r\n"), ACCEPTED | INVALID
    )
    yield Request(
        "idempotency-key-of-10-kb",
        post(GOOD, headers=b"Idempotency-Key: " + b"k" * 10_000 + b"\r\n"),
        INVALID,
    )
    yield Request(
        "prefer-of-60-kb", post(GOOD, headers=b"Prefer: " + b"wait," * 12_000 + b"\r\n"), ACCEPTED | NOT_HTTP
    )
    yield Request("not-http", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" * 10, NOT_HTTP | CLOSED)
    yield Request("http-0.9", b"GET /healthz\r\n\r\n", NOT_HTTP | CLOSED | frozenset({"200"}))
    yield Request("bare-newlines", b"GET /healthz HTTP/1.1\nHost: x\n\n", NOT_HTTP | frozenset({"200"}))
    yield Request(
        "unknown-method",
        post(GOOD).replace(b"POST", b"BREW", 1),
        NOT_HTTP | frozenset({"method_not_allowed"}),
    )
    yield Request("no-host", post(GOOD).replace(b"Host: x\r\n", b"", 1), ACCEPTED | NOT_HTTP)
    yield Request(
        "absolute-form",
        post(GOOD, path=b"http://evil/anonymize"),
        ACCEPTED | NOT_HTTP | frozenset({"not_found"}),
    )
