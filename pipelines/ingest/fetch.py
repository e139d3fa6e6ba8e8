"""A delivered file by path or https URL: checked against its SHA-256, and landed by one rename."""

import fcntl
import http.client
import logging
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from pipelines.errors import ConflictError, InputError, IntegrityError, SetupError
from pipelines.provenance import sha256_of

ATTEMPTS = 4
BACKOFF_S = 1.0  # doubles with each attempt: 1, 2, 4 s
TIMEOUT_S = 30.0  # of one connect or one read, not of the whole file
CHUNK_BYTES = 1 << 18
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
HTML_STARTS = (b"<!doctype", b"<html")
log = logging.getLogger("reviewlake")


def fetch(location: str, sha256: str, landing: Path) -> Path:
    """The file at `location` on this machine; a URL lands at <landing>/<sha256>/<its name>, downloaded at most once."""
    expected = _checked_hash(sha256)
    if "://" not in location:
        return _local(Path(location), expected)
    _require_safe(location)
    if not expected:
        raise InputError(
            f"{_shown(location)}: expected a SHA-256 for a file from a URL, found none. Pass --sha256."
        )
    folder = landing / expected
    for present in sorted(folder.glob("*")):
        if sha256_of(present) == expected:
            return present
    landing.mkdir(parents=True, exist_ok=True)
    with _only_writer(landing / f"{expected}.partial") as partial:
        n_bytes = _download(location, expected, partial)
        folder.mkdir(exist_ok=True)
        landed = folder / _file_name(location)
        os.replace(partial.name, landed)
    log.info("%s: %d bytes landed, SHA-256 %s", landed.name, n_bytes, expected)
    return landed


def _checked_hash(sha256: str) -> str:
    expected = sha256.strip().lower()
    if expected and (len(expected) != 64 or not set(expected) <= set("0123456789abcdef")):
        raise InputError(
            f"--sha256: expected 64 hex digits, found {sha256!r}. Copy it from where the file is offered."
        )
    return expected


def _local(path: Path, expected: str) -> Path:
    if not path.is_file():
        found = (
            "a directory"
            if path.is_dir()
            else "no such file"
            if not path.exists()
            else "no regular file"
        )
        raise InputError(f"{path}: expected a file, found {found}. Correct --path.")
    if not os.access(path, os.R_OK):
        raise InputError(
            f"{path}: expected a readable file, found one without read permission. Correct its mode."
        )
    if expected:
        _require_hash(path.name, expected, sha256_of(path))
    return path


def _require_hash(name: str, expected: str, found: str) -> None:
    if found != expected:
        raise IntegrityError(
            f"{name}: expected SHA-256 {expected}, found {found}. Get the file again, or correct it."
        )


def _require_safe(url: str) -> None:
    scheme = url.partition(":")[0].lower()
    if scheme not in ("https", "http"):
        raise InputError(
            f"--path: expected a path or an https URL, found one of {scheme}. Give an https URL."
        )
    try:
        parts = urlsplit(url)
        is_url = (
            bool(parts.hostname)
            and parts.port != 0
            and parts.username is None
            and url.isascii()
            and url.isprintable()
            and " " not in url
        )
    except ValueError:  # a port that is no number, a bracket left open
        is_url = False
    if not is_url:
        raise InputError(
            "--path: expected a percent-encoded URL without user or password, found another. Correct it."
        )
    if scheme == "http" and parts.hostname not in LOOPBACK:
        raise InputError(
            f"{_shown(url)}: expected a path or an https URL, found http. Give an https URL."
        )


def _shown(url: str) -> str:
    """A URL without user, password and query: those may hold secrets, and errors are logged."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def _file_name(url: str) -> str:
    name = Path(unquote(urlsplit(url).path).replace("\\", "/").replace("\0", "")).name
    return name[-100:] if name not in ("", ".", "..") else "download"


@contextmanager
def _only_writer(path: Path) -> Iterator[BinaryIO]:
    """The partial file, open and locked: a second writer would go on writing into the landed file."""
    with path.open("ab") as partial:
        try:
            fcntl.flock(partial, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(partial.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:  # or the writer before us has landed this very file since we opened it
            raise ConflictError(
                f"{path.name}: another process is downloading it. Wait for it, then retry."
            )
        yield partial


def _download(url: str, expected: str, partial: BinaryIO) -> int:
    """Fill `partial` until its hash is right, over at most ATTEMPTS requests; returns its bytes."""
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            log.info("%s: %s, attempt %d of %d", _shown(url), problem, attempt + 1, ATTEMPTS)
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))
        n_kept = partial.seek(0, os.SEEK_END)
        try:
            problem = _transfer(url, partial)
        except urllib.error.HTTPError as error:
            error.close()
            problem = _restart_or_refuse(url, error, partial)
        except urllib.error.URLError as error:
            problem = str(error.reason)
        except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__} while reading"
        if problem:
            continue
        found = sha256_of(Path(partial.name))
        if found == expected:
            return partial.tell()
        if not n_kept:
            Path(partial.name).unlink()
            _require_hash(_shown(url), expected, found)
        _restart(partial)  # the bytes kept from before may be those at fault
        problem = "the resumed file has the wrong SHA-256"
    raise SetupError(
        f"{_shown(url)}: {problem}, {ATTEMPTS} attempts. Check the network and retry: it resumes."
    )


def _restart_or_refuse(url: str, error: urllib.error.HTTPError, partial: BinaryIO) -> str:
    """What to report of an HTTP error worth another attempt; InputError for one that is not."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        _restart(partial)
    elif error.code not in TRANSIENT:
        Path(partial.name).unlink()
        raise InputError(
            f"{_shown(url)}: expected the file, found HTTP {error.code}. Correct the URL."
        )
    return f"HTTP {error.code}"


def _restart(partial: BinaryIO) -> None:
    partial.seek(0)
    partial.truncate()


def _transfer(url: str, partial: BinaryIO) -> str:
    """One request, from where `partial` ends; returns "" when whole, else what fell short."""
    start = partial.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310  # _require_safe
    if start:
        request.add_header("Range", f"bytes={start}-")
    with _opener(url).open(request, timeout=TIMEOUT_S) as response:
        if start and not (response.headers.get("Content-Range") or "").startswith(
            f"bytes {start}-"
        ):
            start = 0  # the server sends the whole file again
            _restart(partial)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _refuse_html(response.headers.get_content_type() == "text/html", url, partial)
        with tqdm(
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            desc="download",
            delay=2,
            disable=None,
        ) as bar:
            for chunk in _chunks(response):
                _refuse_html(
                    partial.tell() == 0 and chunk.lstrip()[:9].lower().startswith(HTML_STARTS),
                    url,
                    partial,
                )
                partial.write(chunk)
                bar.update(len(chunk))
    partial.flush()
    n_bytes = partial.tell()
    return "" if total in (None, n_bytes) else f"expected {total} bytes, found {n_bytes}"


def _chunks(response: IO[bytes]) -> Iterator[bytes]:
    while chunk := response.read(CHUNK_BYTES):
        yield chunk


def _refuse_html(is_html: bool, url: str, partial: BinaryIO) -> None:
    if is_html:
        Path(partial.name).unlink()
        raise InputError(
            f"{_shown(url)}: expected the file, found an HTML page. Give the link of the file itself."
        )


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_SafeRedirects()]
    if urlsplit(url).hostname in LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))  # a proxy would look for its own loopback
    return urllib.request.build_opener(*handlers)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _require_safe(newurl)
        scheme = urlsplit(newurl).scheme
        if req.type == "https" and scheme != "https":
            raise InputError(
                f"{_shown(req.full_url)}: expected https, found a redirect to {scheme}. Give another URL."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
