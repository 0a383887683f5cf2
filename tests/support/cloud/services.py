"""Google's token, Dataflow and Vertex AI services on loopback: what they were asked.

They answer the real clients' requests as the REST APIs do and run nothing.
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import re
import threading
from collections.abc import Callable
from typing import Any

JOB_ID = "2026-11-22_10_00_00-1234567890"
CUSTOM_JOB = "projects/123/locations/us-central1/customJobs/456"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    body: Any
    authorization: str


class Services:
    """The services and their scripts.

    Attributes:
      requests: all that came, in order.
      states: of the job, without prefix; each look takes one, the last one stays.
      messages: of the Dataflow job, by (importance, text).
      clips_read: the Dataflow job's counter.
      on_state: called when the job is seen in a state.
      failure: HTTP status that every request for jobs gets, with its message.
      error: message of a failed custom job.
    """

    def __init__(self) -> None:
        self.reset()
        services = self

        class Handler(_Handler):
            def answer(self, request: Request) -> tuple[int, Any]:
                return services.answer(request)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        self.requests: list[Request] = []
        self.states = ["PENDING", "RUNNING", "DONE"]
        self.messages: list[tuple[str, str]] = []
        self.clips_read = 0
        self.on_state: dict[str, Callable[[], None]] = {}
        self.failure: tuple[int, str] | None = None
        self.error = ""
        self._job: dict[str, Any] = {}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sent(self, method: str, ending: str) -> list[Request]:
        """Requests by method and end of path, without its query."""
        return [
            request
            for request in self.requests
            if request.method == method
            and request.path.partition("?")[0].endswith(ending)
        ]

    def answer(self, request: Request) -> tuple[int, Any]:
        self.requests.append(request)
        path = request.path.partition("?")[0]
        if path.endswith("/token"):
            token = {"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}
            return 200, token
        if path.endswith("/storageLayout"):
            return 200, {"hierarchicalNamespace": {"enabled": False}}
        if self.failure:
            status, message = self.failure
            return status, {"error": {"code": status, "message": message}}
        if re.search(r"/v1b3/projects/[^/]+/locations/[^/]+/jobs", path):
            return self._answer_dataflow(request, path)
        if "/customJobs" in path:
            return self._answer_vertex(request)
        return 404, {"error": {"code": 404, "message": f"no such path: {path}"}}

    def _next_state(self) -> str:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        self.on_state.pop(state, lambda: None)()
        return state

    def _answer_dataflow(self, request: Request, path: str) -> tuple[int, Any]:
        if path.endswith("/messages"):
            messages = [
                {
                    "id": str(number),
                    "time": f"2026-11-22T10:00:{number:02d}Z",
                    "messageText": text,
                    "messageImportance": f"JOB_MESSAGE_{importance}",
                }
                for number, (importance, text) in enumerate(self.messages)
            ]
            return 200, {"jobMessages": messages}
        if path.endswith("/metrics"):
            name = {"origin": "user", "name": "clips_read", "context": {}}
            return 200, {"metrics": [{"name": name, "scalar": self.clips_read}]}
        if request.method == "POST":
            self._job = request.body
            names = ("name", "type", "clientRequestId")
            answer = {name: self._job[name] for name in names if name in self._job}
            state = "JOB_STATE_PENDING"
            return 200, {"id": JOB_ID, "currentState": state, **answer}
        if path.endswith("/jobs"):
            return 200, {"jobs": []}
        state = f"JOB_STATE_{self._next_state()}"
        return 200, {"id": JOB_ID, "currentState": state}

    def _answer_vertex(self, request: Request) -> tuple[int, Any]:
        if request.method == "POST":
            self._job = request.body
            return 200, {
                **self._job,
                "name": CUSTOM_JOB,
                "state": "JOB_STATE_PENDING",
                "createTime": "2026-11-22T10:00:00Z",
            }
        state = self._next_state()
        answer = {**self._job, "name": CUSTOM_JOB, "state": f"JOB_STATE_{state}"}
        if state == "FAILED":
            answer["error"] = {"code": 3, "message": self.error}
        return 200, answer


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, request: Request) -> tuple[int, Any]:
        raise NotImplementedError

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        json_type = "json" in (self.headers.get("Content-Type") or "")
        request = Request(
            method=self.command,
            path=self.path,
            body=json.loads(body) if body and json_type else body,
            authorization=self.headers.get("Authorization") or "",
        )
        status, answer = self.answer(request)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass
