"""The weighted mean of several predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.schema import Manifest, UserError, fingerprint
from trainer.predict.protocol import Predictor


class Ensemble:
    """Predictors of the same genres, whose probabilities are averaged.

    Attributes:
      members: at least one.
      weights: of each member, positive; their sum is 1. Equal ones unless given.
      temperature: calibrates the mean; each member calibrates its own first.
      thresholds: see `Predictor`; unless given, the members' mean, weighted as their
        probabilities.
    """

    def __init__(
        self,
        members: Sequence[Predictor],
        *,
        weights: Sequence[float] | None = None,
        temperature: float = 1.0,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        """Checks that the members can be asked together.

        Raises:
          UserError: they name other genres, or one a clip and several, or read
            records of one representation that were made in different ways.
          ValueError: the weights are not positive, or not one a member.
        """
        self.members = tuple(members)
        shares = np.ones(len(members)) if weights is None else np.asarray(weights)
        if len(shares) != len(self.members) or not np.all(shares > 0):
            raise ValueError(
                f"Expected a positive weight for each of {len(members)} members. "
                f"Received: {weights}"
            )
        self.weights = tuple((shares / shares.sum()).tolist())
        self.temperature = temperature
        self._sources: dict[str, Manifest] = {}
        for member in self.members:
            if member.genres != self.genres:
                raise UserError(
                    f"One model names other genres ({', '.join(member.genres)}) than "
                    f"another ({', '.join(self.genres)}); only models that were "
                    "trained on the same genres can be averaged."
                )
            for name, manifest in member.sources.items():
                if manifest.task != next(iter(self._sources.values()), manifest).task:
                    raise UserError(
                        "One model tells a clip's one genre, another all that it has; "
                        "only models of the one or of the other kind can be averaged."
                    )
                _check_same(name, self._sources.setdefault(name, manifest), manifest)
        self.thresholds = thresholds
        rows = [member.thresholds for member in self.members]
        known = [row for row in rows if row is not None]
        if thresholds is None and len(known) == len(rows):
            self.thresholds = (np.array(self.weights) @ np.array(known)).tolist()

    @property
    def sources(self) -> Mapping[str, Manifest]:
        """See `Predictor`: those of all members."""
        return self._sources

    @property
    def genres(self) -> tuple[str, ...]:
        """See `Predictor`."""
        return self.members[0].genres

    @property
    def music_model(self) -> bytes | None:
        """See `Predictor`; all that read embeddings read those of one music model."""
        found = (member.music_model for member in self.members)
        return next((content for content in found if content is not None), None)

    @property
    def fingerprint(self) -> str:
        """See `Predictor`."""
        members = [member.fingerprint for member in self.members]
        given = [] if self.thresholds is None else [list(self.thresholds)]
        return fingerprint([members, self.weights, self.temperature, *given])

    def predict(self, records: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """See `Predictor`."""
        from trainer.evaluation.tasks.task import find_task

        mean = sum(
            weight * member.predict(records)
            for weight, member in zip(self.weights, self.members, strict=True)
        )
        if self.temperature == 1:
            return np.asarray(mean, np.float64)
        manifest = next(iter(self._sources.values()))
        task = find_task(manifest)
        return task.scale(np.asarray(mean, np.float64), self.temperature)


def _check_same(name: str, first: Manifest, other: Manifest) -> None:
    """Refuses two manifests whose records of a representation differ."""
    same = first.representations[name] == other.representations[name]
    if not same or first.settings != other.settings:
        raise UserError(
            f"Two models read {name} records that were made in different ways (their "
            f"datasets' settings are {dict(first.settings)} and "
            f"{dict(other.settings)}); average models of one dataset."
        )
