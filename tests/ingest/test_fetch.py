"""Files are downloaded from a local server, checked, and landed or refused. Without Spark."""

import fcntl
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.errors import ConflictError, InputError, IntegrityError, JobError, SetupError
from pipelines.ingest import fetch as fetch_module
from pipelines.ingest.fetch import fetch
from pipelines.provenance import sha256_of

CONTENT = b"text,label\n" + b"A fine film.,1\n" * 40_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WRONG = "0" * 64
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers the n-th request with the n-th scripted answer, and the rest with the last one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = [whole]
        self.requests: list[str] = []  # method and path
        self.logins: list[str | None] = []

    def handle_error(self, *_: object) -> None:
        """Print nothing when the client closes the connection: it does if it refuses the answer."""

    def url(self, path: str = "/reviews.csv") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.logins.append(self.headers["Authorization"])
        answers = self.server.answers
        answers[min(len(self.server.requests), len(answers)) - 1](self)

    do_CONNECT = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, *_: object) -> None:
        """Quiet."""


def whole(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, CONTENT)


def half(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, CONTENT[: len(CONTENT) // 2], {"Content-Length": str(len(CONTENT))})


def chunked(request: BaseHTTPRequestHandler) -> None:
    request.protocol_version = "HTTP/1.1"
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    for start in range(0, len(CONTENT), 50_000):
        chunk = CONTENT[start : start + 50_000]
        request.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    request.wfile.write(b"0\r\n\r\n")


def negative_chunk(request: BaseHTTPRequestHandler) -> None:
    request.protocol_version = "HTTP/1.1"
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"-5\r\nabc\r\n")


def lengths(*values: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for value in values:
            request.send_header("Content-Length", value)
        request.end_headers()
        request.wfile.write(CONTENT)

    return answer


def status(code: int) -> Answer:
    return lambda request: send(request, code, b"no")


def redirect(location: str) -> Answer:
    return lambda request: send(request, 302, b"", {"Location": location})


def page(content_type: str, body: bytes) -> Answer:
    return lambda request: send(request, 200, body, {"Content-Type": content_type})


def send(
    request: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    request.send_response(code)
    all_headers = {"Content-Length": str(len(body)), **(headers or {})}
    for name, value in all_headers.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch_module, "BACKOFF_S", 0.01)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def files(landing: Path) -> list[str]:
    return sorted(str(path.relative_to(landing)) for path in landing.rglob("*") if path.is_file())


def test_a_download_lands_under_its_hash_and_is_not_repeated(
    server: Server, tmp_path: Path
) -> None:
    landed = fetch(server.url("/some%20dir/re%20views.csv?token=x"), SHA256.upper(), tmp_path)
    again = fetch(server.url(), SHA256, tmp_path)
    assert landed == again == tmp_path / SHA256 / "re views.csv"
    assert landed.read_bytes() == CONTENT
    assert server.requests == ["GET /some%20dir/re%20views.csv?token=x"]
    assert files(tmp_path) == [f"{SHA256}/re views.csv"]


def test_a_long_name_in_other_letters_is_cut_to_what_a_file_system_takes(
    server: Server, tmp_path: Path
) -> None:
    landed = fetch(server.url("/" + "%E6%98%A0" * 200 + ".csv"), SHA256, tmp_path)
    assert landed.name == "映" * 32 + ".csv"


def test_a_landed_file_that_has_changed_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    fetch(server.url(), SHA256, tmp_path).write_bytes(b"changed")
    assert fetch(server.url(), SHA256, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answers",
    [
        [half, whole],
        [half, status(503), whole],
        [status(429), status(500), status(504), whole],
        [chunked],
        [lambda request: send(request, 200, CONTENT, {"Content-Encoding": "gzip"})],
        [redirect("/other%20place/caf\xe9?a=b"), whole],
    ],
    ids=["ends early", "ends early, busy", "busy", "in chunks", "encoding declared", "elsewhere"],
)
def test_a_download_is_complete_after_faults_that_pass(
    server: Server, tmp_path: Path, answers: list[Answer]
) -> None:
    server.answers = answers
    assert fetch(server.url(), SHA256, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == len(answers)
    assert files(tmp_path) == [f"{SHA256}/reviews.csv"]


def test_a_server_that_always_ends_early_is_a_setup_error(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.answers = [half]
    cause = r"IncompleteRead\(\d+ bytes read, \d+ more expected\)"
    message = rf"reviews\.csv: download failed after 4 attempts: {cause}\. Check the network"
    with pytest.raises(SetupError, match=message):
        fetch(server.url("/reviews.csv?signature=secret"), SHA256, tmp_path)
    assert len(server.requests) == 4
    assert files(tmp_path) == []
    assert [message[-14:] for message in caplog.messages] == [
        "attempt 2 of 4",
        "attempt 3 of 4",
        "attempt 4 of 4",
    ]
    assert "secret" not in caplog.text


def test_bytes_left_by_a_killed_download_are_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{SHA256}.partial").write_bytes(b"x" * 100)
    assert fetch(server.url(), SHA256, tmp_path).read_bytes() == CONTENT
    assert files(tmp_path) == [f"{SHA256}/reviews.csv"]


def test_wrong_bytes_are_refused_and_a_file_that_landed_before_stays(
    server: Server, tmp_path: Path
) -> None:
    fetch(server.url(), SHA256, tmp_path)
    with pytest.raises(IntegrityError, match=f"expected SHA-256 {WRONG}, found {SHA256}"):
        fetch(server.url(), WRONG, tmp_path)
    assert len(server.requests) == 2
    assert files(tmp_path) == [f"{SHA256}/reviews.csv"]


@pytest.mark.parametrize(
    ("answers", "n_requests", "error", "message"),
    [
        ([status(404)], 1, InputError, "the server answered HTTP 404"),
        ([status(403)], 1, InputError, "the server answered HTTP 403"),
        ([status(500)], 4, SetupError, "failed after 4 attempts: HTTP 500"),
        (
            [page("text/html; charset=utf-8", b"text,label")],
            1,
            InputError,
            "sent an HTML page instead of the file",
        ),
        (
            [page("text/csv", b"\n <!DOCTYPE html><p>Sign in")],
            1,
            InputError,
            "sent an HTML page instead of the file",
        ),
        (
            [redirect("/login"), page("text/plain", b"<HTML>Sign in")],
            2,
            InputError,
            "sent an HTML page instead of the file",
        ),
        (
            [redirect("http://192.0.2.1/reviews.csv")],
            1,
            InputError,
            "redirect refused: expected https, found http",
        ),
        (
            [redirect("file:///etc/hostname")],
            1,
            InputError,
            "redirect refused: expected https, found file",
        ),
        (
            [redirect("https://user:secret@192.0.2.1/reviews.csv")],
            1,
            InputError,
            "redirect refused: the URL is malformed, not percent-encoded, "
            "or has a user or password",
        ),
        (
            [redirect("http://127.0.0.1:port/")],
            1,
            InputError,
            "redirect refused: the URL is malformed, not",
        ),
        (
            [redirect("http://[::1/reviews.csv")],
            1,
            InputError,
            "redirect refused: the URL is malformed",
        ),
        ([redirect("/reviews.csv")], 11, InputError, "more than 10 redirects"),
        ([negative_chunk], 4, SetupError, "failed after 4 attempts: "),
        ([status(302)], 1, InputError, "the server answered HTTP 302"),
        ([lengths("many")], 1, InputError, "the server sent an invalid Content-Length"),
        ([lengths("-1")], 1, InputError, "the server sent an invalid Content-Length"),
        ([lengths("9" * 30)], 1, InputError, "the server sent an invalid Content-Length"),
        ([lengths("9" * 5_000)], 1, InputError, "the server sent an invalid Content-Length"),
        ([lengths("5", "7")], 1, InputError, "the server sent an invalid Content-Length"),
        ([lengths("5", "5")], 1, InputError, "the server sent an invalid Content-Length"),
        (
            [lengths("9" * 18)],
            4,
            SetupError,
            "failed after 4 attempts: IncompleteRead.*more expected",
        ),
    ],
)
def test_an_answer_that_is_not_the_file_is_refused_and_leaves_nothing(
    server: Server,
    tmp_path: Path,
    answers: list[Answer],
    n_requests: int,
    error: type[JobError],
    message: str,
) -> None:
    server.answers = answers
    with pytest.raises(error, match=message):
        fetch(server.url(), SHA256, tmp_path)
    assert len(server.requests) == n_requests
    assert files(tmp_path) == []


def test_a_missing_server_is_a_setup_error_that_does_not_show_the_query(
    server: Server, tmp_path: Path
) -> None:
    url = server.url() + "?signature=secret"
    server.server_close()
    with pytest.raises(
        SetupError, match=r"failed after 4 attempts: .*refused\. Check the network"
    ) as raised:
        fetch(url, SHA256, tmp_path)
    assert "secret" not in str(raised.value)


def test_a_proxy_is_used_for_other_machines_but_not_for_this_one(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, server.url(""))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server.answers = [status(403)]
    with pytest.raises(SetupError, match=r"failed after 4 attempts: Tunnel connection failed: 403"):
        fetch("https://192.0.2.1/reviews.csv?signature=secret", SHA256, tmp_path)
    assert server.requests == ["CONNECT 192.0.2.1:443"] * 4
    server.answers = [whole]
    assert fetch(server.url(), SHA256, tmp_path).read_bytes() == CONTENT
    assert server.requests[4:] == ["GET /reviews.csv"]


def test_logins_in_netrc_are_not_sent(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fetch(server.url(), SHA256, tmp_path / "landing")
    assert server.logins == [None]


def test_a_silent_server_is_a_setup_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "TIMEOUT_S", 0.3)
    done = threading.Event()

    def silent(_: BaseHTTPRequestHandler) -> None:
        done.wait(10)

    server.answers = [silent]
    with pytest.raises(SetupError, match="failed after 4 attempts"):
        fetch(server.url(), SHA256, tmp_path)
    done.set()
    assert len(server.requests) == 4


def test_a_second_download_of_the_same_file_at_the_same_time_is_refused(
    server: Server, tmp_path: Path
) -> None:
    with (tmp_path / f"{SHA256}.partial").open("ab") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another process is downloading this file"):
            fetch(server.url(), SHA256, tmp_path)
    assert fetch(server.url(), SHA256, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "target", ["http://localhost/reviews.csv", "http://192.0.2.1/", "ftp://192.0.2.1/x"]
)
def test_https_does_not_follow_a_redirect_to_anything_else(target: str) -> None:
    for url in ("https://192.0.2.1/reviews.csv", "HTTPS://192.0.2.1/reviews.csv"):
        with pytest.raises(InputError, match=r"redirect refused: expected https, found"):
            fetch_module._redirect_target(url, target)
        followed = fetch_module._redirect_target(url, "https://192.0.2.2/r.csv")
        assert followed == "https://192.0.2.2/r.csv"
        assert fetch_module._redirect_target(url, "r.csv") == "https://192.0.2.1/r.csv"


@pytest.mark.parametrize(
    ("location", "sha256", "message"),
    [
        (
            "https://192.0.2.1/reviews.csv",
            "",
            "a file from a URL needs --sha256",
        ),
        ("http://192.0.2.1/reviews.csv", SHA256, "--path: expected https, found http"),
        (
            "file:///etc/hostname",
            SHA256,
            "--path: expected https, found file",
        ),
        (
            "ftp://192.0.2.1/reviews.csv",
            SHA256,
            "--path: expected https, found ftp",
        ),
        ("https:///reviews.csv", SHA256, "--path: the URL is malformed, not percent-encoded"),
        ("https://192.0.2.1/a b.csv", SHA256, "--path: the URL is malformed, not percent-encoded"),
        (
            "https://user:secret@192.0.2.1/a.csv",
            SHA256,
            "--path: the URL is malformed, not percent-encoded, or has a user or password",
        ),
        (
            "https://192.0.2.1:port/a.csv",
            SHA256,
            "--path: the URL is malformed, not percent-encoded",
        ),
        ("no/such/file.csv", "", r"no/such/file\.csv: no such file"),
        (".", "", r"\.: expected a file, found a directory"),
    ],
)
def test_an_invalid_path_or_url_is_refused(
    tmp_path: Path, location: str, sha256: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fetch(location, sha256, tmp_path / "landing")
    assert not (tmp_path / "landing").exists()


@pytest.mark.parametrize("sha256", ["", SHA256])
def test_a_local_file_is_used_in_place(tmp_path: Path, sha256: str) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(CONTENT)
    assert fetch(str(path), sha256, tmp_path / "landing") == path
    assert sha256_of(path) == SHA256
    with pytest.raises(
        IntegrityError, match=rf"reviews\.csv: expected SHA-256 {WRONG}, found {SHA256}"
    ):
        fetch(str(path), WRONG, tmp_path / "landing")
