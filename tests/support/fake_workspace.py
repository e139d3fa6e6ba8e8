"""A fake Databricks workspace on loopback, in memory, for deployments of our bundle.

It serves the CLI's own checks, workspace files, and the creation, reading, update and deletion of
the kinds of resource in databricks.yml. Any other call gets a 404 and is listed in `unknown`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Lock, Thread
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

USER = "someone@example.com"
WORKSPACE_ID = "1"
Json = dict[str, Any]
Key = TypeVar("Key")
Value = TypeVar("Value")
UNITY_CATALOG_KINDS = {"schemas": "schema", "volumes": "volume", "models": "registered_model"}


class MissingError(Exception):
    """The resource does not exist."""


class ExistsError(Exception):
    """The resource to create exists already."""


@dataclass(frozen=True)
class Request:
    """One call: the variable parts of its path, its query, its content."""

    parts: tuple[str, ...]
    query: dict[str, str]
    content: bytes

    @property
    def body(self) -> Json:
        """Parse the content as JSON."""
        parsed: Json = json.loads(self.content or b"{}")
        return parsed


@dataclass
class FakeWorkspace:
    """The state of the workspace and its server: `with FakeWorkspace() as workspace: ...`."""

    jobs: dict[str, Json] = field(default_factory=dict)
    securables: dict[tuple[str, str], Json] = field(default_factory=dict)
    experiments: dict[str, Json] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    permissions: dict[str, list[Json]] = field(default_factory=dict)
    grants: dict[tuple[str, str], dict[str, list[str]]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def __enter__(self) -> "FakeWorkspace":
        self._ids = count(1001)
        self._lock = Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Return the value for DATABRICKS_HOST."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def remaining(self) -> list[str]:
        """Return the names of the existing resources; none after a complete destroy."""
        jobs = [f"job {job['name']}" for job in self.jobs.values()]
        experiments = [f"experiment {part['name']}" for part in self.experiments.values()]
        securables = [f"{UNITY_CATALOG_KINDS[kind]} {name}" for kind, name in self.securables]
        return sorted([*jobs, *experiments, *securables])

    def answer(self, method: str, url: str, content: bytes) -> tuple[HTTPStatus, Any]:
        """Return status and body for one call. Concurrent calls of the CLI are serialised."""
        parsed = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parsed.query).items()}
        for route_method, pattern, call in ROUTES:
            matched = re.fullmatch(pattern, parsed.path)
            if route_method == method and matched:
                parts = tuple(unquote(part) for part in matched.groups())
                return self._result_of(call, Request(parts, query, content))
        self.unknown.append(f"{method} {parsed.path}")
        return _refusal(HTTPStatus.NOT_FOUND, "ENDPOINT_NOT_FOUND", f"{method} {parsed.path}")

    def _result_of(self, call: "Call", request: Request) -> tuple[HTTPStatus, Any]:
        with self._lock:
            try:
                return HTTPStatus.OK, call(self, request)
            except MissingError as error:
                return _refusal(HTTPStatus.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST", str(error))
            except KeyError as error:
                return _refusal(HTTPStatus.BAD_REQUEST, "INVALID_PARAMETER_VALUE", f"no {error}")
            except ExistsError as error:
                return _refusal(HTTPStatus.CONFLICT, "RESOURCE_ALREADY_EXISTS", str(error))

    # The workspace's files

    def import_file(self, request: Request) -> Json:
        path = "/" + request.parts[0].lstrip("/")
        if path in self.files and request.query.get("overwrite") != "true":
            raise ExistsError(f"Path ({path}) already exists.")
        self.files[path] = request.content
        self._make_folders(path.rpartition("/")[0])
        return {}

    def make_folder(self, request: Request) -> Json:
        self._make_folders(request.body["path"])
        return {}

    def _make_folders(self, path: str) -> None:
        while path:
            self.folders.add(path)
            path = path.rpartition("/")[0]

    def file_status(self, request: Request) -> Json:
        path = request.query["path"]
        if path in self.files:
            return {"path": path, "object_type": "FILE", "object_id": 1, "resource_id": "1"}
        if path in self.folders:
            return {"path": path, "object_type": "DIRECTORY", "object_id": 2, "resource_id": "2"}
        raise MissingError(f"Path ({path}) doesn't exist.")

    def export_file(self, request: Request) -> bytes:
        path = "/" + request.parts[0].lstrip("/") if request.parts else request.query["path"]
        return _existing(self.files, path)

    def delete_path(self, request: Request) -> Json:
        path = request.body["path"]
        self.file_status(Request((), {"path": path}, b""))
        for file in [file for file in self.files if _is_within(file, path)]:
            del self.files[file]
        self.folders = {folder for folder in self.folders if not _is_within(folder, path)}
        return {}

    # Unity Catalog

    def create_securable(self, request: Request) -> Json:
        kind = request.parts[0]
        body = request.body
        parents = [body.get("catalog_name", "")]
        if "schema_name" in body:
            parents.append(body["schema_name"])
        name = ".".join([*parents, body["name"]])
        if (kind, name) in self.securables:
            raise ExistsError(f"{UNITY_CATALOG_KINDS[kind]} {name} already exists")
        if len(parents) == 2 and ("schemas", ".".join(parents)) not in self.securables:
            raise MissingError(f"schema {'.'.join(parents)} does not exist")
        self.securables[kind, name] = body | {"full_name": name, "owner": USER}
        return self.securables[kind, name]

    def read_securable(self, request: Request) -> Json:
        return _existing(self.securables, (request.parts[0], request.parts[1]))

    def update_securable(self, request: Request) -> Json:
        self.read_securable(request).update(request.body)
        return self.read_securable(request)

    def delete_securable(self, request: Request) -> Json:
        self.read_securable(request)
        del self.securables[request.parts[0], request.parts[1]]
        return {}

    def update_grants(self, request: Request) -> Json:
        granted = self.grants.setdefault((request.parts[0], request.parts[1]), {})
        for change in request.body["changes"]:
            principal = change["principal"]
            is_revoked = "ALL_PRIVILEGES" in change.get("remove", [])
            kept = [] if is_revoked else granted.get(principal, [])
            granted[principal] = sorted({*kept, *change.get("add", [])})
        return self.read_grants(request)

    def read_grants(self, request: Request) -> Json:
        granted = self.grants.get((request.parts[0], request.parts[1]), {})
        assignments = [
            {"principal": principal, "privileges": privileges}
            for principal, privileges in granted.items()
        ]
        return {"privilege_assignments": assignments}

    # Jobs and experiments

    def create_job(self, request: Request) -> Json:
        job_id = next(self._ids)
        self.jobs[str(job_id)] = request.body
        return {"job_id": job_id}

    def read_job(self, request: Request) -> Json:
        job_id = request.query["job_id"]
        settings = _existing(self.jobs, job_id)
        runs_as = (settings.get("run_as") or {"user_name": USER}).values()
        return {
            "job_id": int(job_id),
            "settings": settings,
            "creator_user_name": USER,
            "run_as_user_name": next(iter(runs_as)),
        }

    def update_job(self, request: Request) -> Json:
        job_id = str(request.body["job_id"])
        _existing(self.jobs, job_id)
        self.jobs[job_id] = request.body["new_settings"]
        return {}

    def delete_job(self, request: Request) -> Json:
        _existing(self.jobs, str(request.body["job_id"]))
        del self.jobs[str(request.body["job_id"])]
        return {}

    def create_experiment(self, request: Request) -> Json:
        experiment_id = str(next(self._ids))
        self.experiments[experiment_id] = request.body | {
            "experiment_id": experiment_id,
            "lifecycle_stage": "active",
        }
        return {"experiment_id": experiment_id}

    def read_experiment(self, request: Request) -> Json:
        return {"experiment": _existing(self.experiments, request.query["experiment_id"])}

    def delete_experiment(self, request: Request) -> Json:
        _existing(self.experiments, request.body["experiment_id"])
        del self.experiments[request.body["experiment_id"]]
        return {}

    def set_permissions(self, request: Request) -> Json:
        self.permissions[request.parts[0]] = request.body["access_control_list"]
        return self.read_permissions(request)

    def read_permissions(self, request: Request) -> Json:
        access = []
        for entry in self.permissions.get(request.parts[0], []):
            level = {"permission_level": entry["permission_level"], "inherited": False}
            names = {name: value for name, value in entry.items() if name != "permission_level"}
            access.append(names | {"all_permissions": [level]})
        return {"object_id": request.parts[0], "access_control_list": access}

    def me(self, _: Request) -> Json:
        return {"id": "1", "userName": USER, "displayName": "Someone", "active": True}

    def host(self, _: Request) -> Json:
        return {"oidc_endpoint": f"{self.url}/oidc", "workspace_id": WORKSPACE_ID}


def _refusal(status: HTTPStatus, code: str, message: str) -> tuple[HTTPStatus, Json]:
    return status, {"error_code": code, "message": message}


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _existing(resources: dict[Key, Value], key: Key) -> Value:
    if key not in resources:
        raise MissingError(f"{key} does not exist")
    return resources[key]


Call = Callable[[FakeWorkspace, Request], Any]
UC = r"/api/2\.1/unity-catalog"
MLFLOW = r"/api/2\.0/mlflow/experiments"
ROUTES: list[tuple[str, str, Call]] = [
    ("GET", r"/api/2\.0/preview/scim/v2/Me", FakeWorkspace.me),
    ("GET", r"/\.well-known/databricks-config", FakeWorkspace.host),
    ("GET", r"/api/2\.0/workspace/get-status", FakeWorkspace.file_status),
    ("GET", r"/api/2\.0/workspace/export", FakeWorkspace.export_file),
    ("GET", r"/api/2\.0/workspace-files/(.+)", FakeWorkspace.export_file),
    ("POST", r"/api/2\.0/workspace-files/import-file/(.+)", FakeWorkspace.import_file),
    ("POST", r"/api/2\.0/workspace/mkdirs", FakeWorkspace.make_folder),
    ("POST", r"/api/2\.0/workspace/delete", FakeWorkspace.delete_path),
    ("POST", UC + "/(schemas|volumes|models)", FakeWorkspace.create_securable),
    ("GET", UC + "/(schemas|volumes|models)/([^/]+)", FakeWorkspace.read_securable),
    ("PATCH", UC + "/(schemas|volumes|models)/([^/]+)", FakeWorkspace.update_securable),
    ("DELETE", UC + "/(schemas|volumes|models)/([^/]+)", FakeWorkspace.delete_securable),
    ("PATCH", UC + "/permissions/([^/]+)/([^/]+)", FakeWorkspace.update_grants),
    ("GET", UC + "/permissions/([^/]+)/([^/]+)", FakeWorkspace.read_grants),
    ("POST", r"/api/2\.2/jobs/create", FakeWorkspace.create_job),
    ("GET", r"/api/2\.2/jobs/get", FakeWorkspace.read_job),
    ("POST", r"/api/2\.2/jobs/reset", FakeWorkspace.update_job),
    ("POST", r"/api/2\.2/jobs/delete", FakeWorkspace.delete_job),
    ("POST", MLFLOW + "/create", FakeWorkspace.create_experiment),
    ("GET", MLFLOW + "/get", FakeWorkspace.read_experiment),
    ("POST", MLFLOW + "/delete", FakeWorkspace.delete_experiment),
    ("PUT", r"/api/2\.0/permissions/(.+)", FakeWorkspace.set_permissions),
    ("GET", r"/api/2\.0/permissions/(.+)", FakeWorkspace.read_permissions),
]


def _handler_of(workspace: FakeWorkspace) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = workspace.answer(self.command, self.path, content)
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("X-Databricks-Org-Id", WORKSPACE_ID)
            self.end_headers()
            self.wfile.write(payload)

        # The base class prescribes these names.
        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = reply  # noqa: N815

        def log_message(self, *_: Any) -> None:  # no log on the caller's stderr
            return

    return Handler
