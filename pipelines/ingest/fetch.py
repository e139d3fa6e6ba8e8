"""Find a delivered file by path or https URL, check its SHA-256, and land it by one rename."""

import fcntl
import logging
import os
import re
import ssl
import string
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote, urljoin, urlsplit

from tqdm import tqdm

from pipelines.errors import ConflictError, InputError, IntegrityError, SetupError
from pipelines.lake.links import inside
from pipelines.provenance import sha256_of
from pipelines.quoting import shown

if TYPE_CHECKING:  # imported only where a URL is fetched: 0.1 s that a local file does not need
    import requests

ATTEMPTS = 4
BACKOFF_S = 1.0  # doubles with each attempt: 1, 2, 4 s
TIMEOUT_S = 30.0  # per connect or read, not for the whole file
MAX_REDIRECTS = 10
CHUNK_BYTES = 1 << 18
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
HTML_STARTS = (b"<!doctype", b"<html")
CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")
MAX_FILE_NAME_BYTES = 100
log = logging.getLogger("reviewlake")


def fetch(location: str, sha256: str, landing: Path) -> Path:
    """Return the file at `location` on this machine.

    `sha256` is 64 hex digits, or empty if unknown. The file of a URL lands at
    <landing>/<sha256>/<its name> and is downloaded at most once.
    """
    expected = sha256.lower()
    if "://" not in location:
        return _local(Path(location), expected)
    if fault := _url_fault(location):
        raise InputError(f"--path: {fault}. Give an https URL.")
    if not expected:
        raise InputError(f"{_shown(location)}: a file from a URL needs --sha256. Pass it.")
    folder = inside(landing, landing / expected)
    for present in sorted(folder.glob("*")):
        if sha256_of(present) == expected:
            return present
    landing.mkdir(parents=True, exist_ok=True)
    with _only_writer(inside(landing, landing / f"{expected}.partial")) as partial:
        n_bytes = _download(location, expected=expected, partial=partial)
        folder.mkdir(exist_ok=True)
        landed = folder / _file_name(location)
        os.replace(partial.name, landed)
    log.info("%s: downloaded %s bytes, SHA-256 %s", landed.name, f"{n_bytes:,}", expected)
    return landed


def _local(path: Path, expected: str) -> Path:
    require_readable(path)
    if expected:
        _require_hash(path, name=path.name, expected=expected)
    return path


def require_readable(path: Path) -> None:
    """Raise InputError unless the path is a file that may be read."""
    if not path.exists():
        raise InputError(f"{path}: no such file. Correct --path.")
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "a special file"
        raise InputError(f"{path}: expected a file, found {kind}. Correct --path.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read this file. Change its mode.")


def _require_hash(path: Path, *, name: str, expected: str) -> None:
    sha256 = sha256_of(path)
    if sha256 != expected:
        raise IntegrityError(
            f"{name}: expected SHA-256 {expected}, found {sha256}. "
            "Get the file again, or correct the hash."
        )


def _url_fault(url: str) -> str:
    """Return why this URL may not be requested; "" if it may."""
    scheme = url.partition(":")[0].lower()
    if scheme not in ("https", "http"):
        return f"expected https, found {scheme[:20]}"
    malformed = "the URL is malformed, not percent-encoded, or has a user or password"
    if not url.isascii() or not url.isprintable() or " " in url:
        return malformed
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:  # the port is not a number, or a bracket is not closed
        return malformed
    if not is_whole:
        return malformed
    if scheme == "http" and parts.hostname not in LOOPBACK:
        return "expected https, found http"
    return ""


def _shown(url: str) -> str:
    """Return the URL without user, password and query, since they may be secret."""
    parts = urlsplit(url)
    return shown(f"{parts.scheme}://{parts.hostname or ''}{parts.path}")


def _file_name(url: str) -> str:
    name = Path(unquote(urlsplit(url).path).replace("\\", "/").replace("\0", "")).name
    end = name.encode()[-MAX_FILE_NAME_BYTES:].decode(errors="ignore")
    return end if end not in ("", ".", "..") else "download"


@contextmanager
def _only_writer(path: Path) -> Iterator[BinaryIO]:
    """Open the partial file and lock it; remove it if an error is raised."""
    with path.open("ab") as partial:
        try:
            fcntl.flock(partial, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(partial.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:  # another process writes this file, or has just landed or removed it
            raise ConflictError(
                f"{path.name}: another process is downloading this file. Wait for it, then retry."
            )
        try:
            yield partial
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _download(url: str, *, expected: str, partial: BinaryIO) -> int:
    """Download the file into `partial`, check its SHA-256, and return its size in bytes.

    urllib3's Retry is not used: it does not retry a response that ends early, and logs the query.
    """
    import requests
    import urllib3

    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            log.info("%s: %s, attempt %d of %d", _shown(url), problem, attempt + 1, ATTEMPTS)
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))
        try:
            n_bytes = _transfer(url, partial)
        except requests.exceptions.InvalidHeader as error:
            raise InputError(
                f"{_shown(url)}: the server sent an invalid Content-Length. Give another URL."
            ) from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise InputError(
                f"{_shown(url)}: this URL or the URL of the proxy is invalid. Correct it."
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            problem = _cause(error)
        else:
            partial.flush()
            _require_hash(Path(partial.name), name=_shown(url), expected=expected)
            return n_bytes
    raise SetupError(
        f"{_shown(url)}: download failed after {ATTEMPTS} attempts: {problem}. "
        "Check the network and retry."
    )


def _cause(error: BaseException) -> str:
    """Return the text of the innermost cause; the outer errors show the query of the URL."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shown(text)


def _transfer(url: str, partial: BinaryIO) -> int:
    """Request the file once, write it to `partial`, and return its size in bytes."""
    from requests.adapters import HTTPAdapter

    partial.truncate(0)
    n_bytes = 0
    with closing(HTTPAdapter()) as adapter, _open_response(adapter, url) as response:
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise _html_page(url)
        progress = tqdm(
            total=_content_length(response),
            unit="B",
            unit_scale=True,
            desc="download",
            delay=2,
            disable=None,
        )
        with progress:
            while chunk := _read_chunk(response):
                if n_bytes == 0 and chunk.lstrip()[:9].lower().startswith(HTML_STARTS):
                    raise _html_page(url)
                partial.write(chunk)
                n_bytes += len(chunk)
                progress.update(len(chunk))
    return n_bytes


def _read_chunk(response: "requests.Response") -> bytes:
    """Read the next bytes as they are: some servers declare a .gz file as a Content-Encoding."""
    import requests

    try:
        return bytes(response.raw.read(CHUNK_BYTES, decode_content=False))
    except ValueError as error:  # of http.client, which accepts a negative size of a chunk
        raise requests.exceptions.ChunkedEncodingError(error) from error


def _open_response(adapter: "requests.adapters.HTTPAdapter", url: str) -> "requests.Response":
    """Request `url`, check and follow its redirects, and return the response with the file.

    No Session is used: it sends the logins of ~/.netrc, and fails on a malformed redirect.
    """
    import requests

    certificates = ssl.get_default_verify_paths()  # the system's may include a company's own
    for _ in range(MAX_REDIRECTS + 1):
        # A proxy would resolve a loopback address to its own machine.
        is_loopback = urlsplit(url).hostname in LOOPBACK
        request = requests.Request("GET", url, headers={"Accept-Encoding": "identity"})
        response = adapter.send(
            request.prepare(),
            stream=True,
            timeout=TIMEOUT_S,
            verify=certificates.cafile or certificates.capath or True,
            proxies={} if is_loopback else requests.utils.get_environ_proxies(url),
        )
        if response.status_code in TRANSIENT:
            raise requests.HTTPError(f"HTTP {response.status_code}")
        if not response.is_redirect:
            if not 200 <= response.status_code < 300:
                raise InputError(
                    f"{_shown(url)}: the server answered HTTP {response.status_code}. "
                    "Correct the URL."
                )
            return response
        response.close()
        url = _redirect_target(url, response.headers["Location"])
    raise InputError(f"{_shown(url)}: more than {MAX_REDIRECTS} redirects. Give another URL.")


def _redirect_target(url: str, location: str) -> str:
    """Return the URL that a redirect leads to; raise InputError if it may not be followed."""
    try:
        target = urljoin(url, quote(location, safe=string.punctuation, encoding="latin-1"))
    except ValueError:
        fault = "the URL is malformed"
    else:
        fault = _url_fault(target)
        if urlsplit(url).scheme == "https" and not target.startswith("https:"):
            fault = fault or "expected https, found http"
    if fault:
        raise InputError(f"{_shown(url)}: redirect refused: {fault}. Give another URL.")
    return target


def _content_length(response: "requests.Response") -> int | None:
    """Return the declared size in bytes; None if the server declares none."""
    import requests

    length = response.headers.get("Content-Length")
    if length is None:
        return None
    if not CONTENT_LENGTH.fullmatch(length):
        raise requests.exceptions.InvalidHeader(f"Content-Length: {length}")
    return int(length)


def _html_page(url: str) -> InputError:
    return InputError(
        f"{_shown(url)}: the server sent an HTML page instead of the file. "
        "Give the URL of the file itself."
    )
