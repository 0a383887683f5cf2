"""A folder of FMA's archives: what is there and right, and what has to be fetched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence

from pipeline.common import ownership
from pipeline.common.files import LocalFiles
from pipeline.common.owned_kinds import DOWNLOADS
from pipeline.common.plain_text import one_line
from pipeline.common.progress import BYTE, SILENT, Reporter, Stage
from pipeline.launch.fma import transfer
from pipeline.launch.fma.published import Published
from pipeline.schema import UserError

#: What was verified: names with size, time of modification and SHA-1.
VERIFIED_FILE = "verified.json"
#: Room that stays free.
SPARE_BYTES = 1 << 30


class Downloads:
    """The folder that archives are fetched to.

    Args:
      folder: made where it is missing. What others put there stays as it is.
      reporter: is told how far reading and fetching are.

    Raises:
      UserError: something that is not ours lies where a file would be written.
    """

    def __init__(self, folder: str, reporter: Reporter = SILENT) -> None:
        self.folder = folder
        self._reporter = reporter
        self._files = LocalFiles()

    def path(self, archive: Published) -> str:
        """Where an archive is, or will be."""
        return os.path.join(self.folder, archive.name)

    def claim(self, archives: Sequence[Published]) -> None:
        """Marks what will be written as ours, before it is.

        Raises:
          UserError: a file of such a name is there and not ours.
        """
        names = [VERIFIED_FILE]
        for archive in archives:
            names += [f"{archive.name}.part", f"{archive.name}.part.json"]
            if not os.path.lexists(self.path(archive)):
                names.append(archive.name)
        ownership.claim(self._files, self.folder, DOWNLOADS, names=names)

    def find_missing(self, archives: Sequence[Published]) -> list[Published]:
        """Those that are not there.

        Raises:
          UserError: one that is there is not what was published.
        """
        missing = []
        for archive in archives:
            path = self.path(archive)
            if not os.path.lexists(path):
                missing.append(archive)
            elif self.verify(path, archive):
                self.note_verified([archive])
        return missing

    def verify(self, path: str, archive: Published) -> bool:
        """Holds a file that somebody put there against its SHA-1.

        Returns:
          Whether it had to be read: it was not found right before, or changed since.

        Raises:
          UserError: it is another, or cannot be read.
        """
        try:
            if self._read_verified().get(path) == [*_identify(path), archive.sha1]:
                return False
            found = self._digest(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); mend or remove it."
            ) from error
        if found != archive.sha1:
            raise UserError(
                f"{path} is not what FMA published: its SHA-1 is {found}, not "
                f"{archive.sha1}; it was cut off or changed. Move it away to have it "
                "fetched anew."
            )
        return True

    def note_verified(self, archives: Sequence[Published], folder: str = "") -> None:
        """Lets a later run do without reading files again.

        Args:
          archives: that are right.
          folder: where they lie; empty for this one.
        """
        known = self._read_verified()
        for archive in archives:
            path = os.path.join(folder or self.folder, archive.name)
            known[path] = [*_identify(path), archive.sha1]
        self.claim([])
        data = json.dumps(known, indent=1, sort_keys=True).encode()
        self._files.write(os.path.join(self.folder, VERIFIED_FILE), data)

    def _read_verified(self) -> dict[str, list[object]]:
        try:
            with open(os.path.join(self.folder, VERIFIED_FILE), "rb") as file:
                content = json.load(file)
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def check_room(self, missing: Sequence[Published], more: int = 0) -> None:
        """Refuses to begin what the disk has no room for.

        Args:
          missing: archives to fetch; what is there of them counts.
          more: bytes that will be written besides.

        Raises:
          UserError: there is too little.
        """
        here = [os.path.join(self.folder, f"{a.name}.part") for a in missing]
        there = sum(os.path.getsize(path) for path in here if os.path.isfile(path))
        needed = sum(archive.size for archive in missing) - there + more
        if needed <= 0:
            return
        folder = os.path.abspath(self.folder)
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        free = shutil.disk_usage(folder).free
        if free < needed + SPARE_BYTES:
            raise UserError(
                f"{self.folder} has {format_bytes(free)} free, and "
                f"{format_bytes(needed)} are needed, with {format_bytes(SPARE_BYTES)} "
                "to spare; make room, or give an --output on a larger disk."
            )

    def fetch(
        self, archive: Published, base: str, options: transfer.Options | None = None
    ) -> None:
        """Fetches an archive, or the rest of it, and gives it its name if it is right.

        Raises:
          UserError: it cannot be had, or is not the published one.
        """
        path = self.path(archive)
        part = f"{path}.part"
        with self._reporter.stage(archive.name, unit=BYTE) as stage:
            transfer.fetch(f"{base}{archive.name}", path, _tell(stage), options)
        found = self._digest(part)
        if found != archive.sha1:
            self._files.delete(part)
            self._files.delete(f"{part}.json")
            raise UserError(
                f"{base}{archive.name} is not what FMA published: its SHA-1 is "
                f"{found}, not {archive.sha1}. What came was deleted; run the same "
                "command again to fetch it anew, or name another --mirror."
            )
        self._files.rename(part, path)
        self._files.delete(f"{part}.json")
        self.note_verified([archive])

    def _digest(self, path: str) -> str:
        name = f"Checking {one_line(path)}"
        with self._reporter.stage(name, unit=BYTE) as stage:
            return transfer.digest(path, _tell(stage))


def _tell(stage: Stage) -> transfer.Report:
    def tell(done: int, total: int | None) -> None:
        stage.total = total
        stage.update(done)

    return tell


def format_bytes(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def _identify(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
