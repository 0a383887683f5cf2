"""ZIPs made for tests."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

METHODS = (
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_LZMA,
    zipfile.ZIP_STORED,
)


def write_zip(
    path: Path,
    contents: Mapping[str, bytes],
    methods: tuple[int, ...] = (zipfile.ZIP_BZIP2,),
) -> Path:
    """Packs contents by name, with one method after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, content) in enumerate(contents.items()):
            archive.writestr(name, content, methods[number % len(methods)])
    return path


def zip_folder(
    path: Path, folder: Path, methods: tuple[int, ...] = (zipfile.ZIP_BZIP2,)
) -> Path:
    """Packs a folder under its own name."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    contents = {
        file.relative_to(folder.parent).as_posix(): file.read_bytes() for file in files
    }
    return write_zip(path, contents, methods)


def damage(path: Path, name: str, offset: int = 40) -> None:
    """Changes a byte of a member's packed content."""
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo(name).header_offset + 30 + len(name.encode()) + offset
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)


def encrypt(path: Path) -> Path:
    """Lets the directory say that all members are."""
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"PK\1\2", at + 1)) > 0:
        data[at + 8] |= 1
    path.write_bytes(data)
    return path
