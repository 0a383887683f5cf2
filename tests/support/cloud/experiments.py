"""Vertex AI's metadata and TensorBoard services: they keep what they are told."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable
from typing import Any

PLACE = "projects/fma-project/locations/us-central1"
STORE = f"{PLACE}/metadataStores/default"
BOARD = f"{PLACE}/tensorboards/7"


class Experiments:
    """Resources by name, as the REST APIs have them.

    Attributes:
      resources: bodies by full name.
      calls: of methods that are no resource: name, method and body.
    """

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {
            name: {"name": name} for name in (STORE, BOARD)
        }
        self.calls: list[tuple[str, str, dict[str, Any]]] = []

    def runs(self) -> list[dict[str, Any]]:
        """Metadata of all experiment runs, in the order of their beginning."""
        return [
            body["metadata"]
            for body in self.resources.values()
            if body.get("schemaTitle") == "system.ExperimentRun"
        ]

    def series(self) -> dict[str, list[tuple[int, float]]]:
        """Of each metric, steps and values, in the order of their coming."""
        names = {
            name.rpartition("/")[2]: body["displayName"]
            for name, body in self.resources.items()
            if "/timeSeries/" in name
        }
        found: dict[str, list[tuple[int, float]]] = {}
        for _, method, body in self.calls:
            for data in body["timeSeriesData"] if method == "write" else ():
                values = found.setdefault(names[data["tensorboardTimeSeriesId"]], [])
                for value in data["values"]:
                    scalar = value.get("scalar", {}).get("value", 0.0)
                    values.append((int(value["step"]), scalar))
        return found

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and content."""
        path, _, query = path.removeprefix("/v1/").partition("?")
        name, _, verb = path.partition(":")
        if verb:
            self.calls.append((name, verb, body))
            return 200, {}
        if method == "GET" and name.endswith("/timeSeries"):
            found = self._below(name)
            return 200, {"tensorboardTimeSeries": list(found)}
        if method == "POST":
            ids = [v for k, v in urllib.parse.parse_qsl(query) if k.endswith("Id")]
            name += f"/{ids[0] if ids else len(self.resources)}"
            if name in self.resources:
                return 409, {"error": {"code": 409, "message": f"{name} exists"}}
        elif name not in self.resources:
            return 404, {"error": {"code": 404, "message": f"no {name}"}}
        if method != "GET":
            self.resources[name] = {**body, "name": name}
        return 200, self.resources[name]

    def _below(self, folder: str) -> Iterable[dict[str, Any]]:
        for name, body in self.resources.items():
            if name.startswith(f"{folder}/"):
                yield body
