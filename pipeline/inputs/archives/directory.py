"""What a ZIP holds, by its central directory, which is read once a process.

Standard library only; who can open more than local files hands in how.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, BinaryIO, NamedTuple, cast

from pipeline.common.regular_file import open_regular

#: Opens a file of any file system for reading; seekable.
Opener = Callable[[str], BinaryIO]

#: Room for a million members; FMA's largest archive takes 11 MB.
MOST_DIRECTORY_BYTES = 128 << 20
#: What file systems take for a name.
MOST_NAME_BYTES = 255
#: Of all archives whose directories a process keeps, some 400 bytes each.
MOST_MEMBERS = 1_000_000

#: Read at once from an archive's end: all of a small one's directory. The record at the
#: very end, with the longest comment, has 65,557 bytes.
_TAIL_BYTES = 1 << 17
#: Signature and number of this disk, of the record at the end.
_END = struct.Struct("<4sH")
_ENCRYPTED, _UTF8 = 1 << 0, 1 << 11
_DOS, _UNIX = 0, 3
#: An extra field: Info-ZIP's name in UTF-8, behind a version and the plain one's CRC.
_UNICODE_PATH, _UNICODE_PATH_HEAD = 0x7075, struct.Struct("<BL")
_METHODS = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    zipfile.ZIP_LZMA: "LZMA",
}


class ArchiveError(OSError):
    """A file that cannot be used as a ZIP; `strerror` is a sentence's end."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(errno.EINVAL, message, path)


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
      offset: of its local header in the archive, in bytes.
      packed: bytes that it takes there.
      size: bytes that it unpacks to.
      crc: CRC-32 of these.
      method: of compression, by ZIP's numbers.
      problem: why nothing can be read from it; empty where that is not known.
    """

    offset: int
    packed: int
    size: int
    crc: int
    method: int
    problem: str = ""


class Archive(NamedTuple):
    """An archive's central directory.

    Attributes:
      path: of the archive.
      members: by name, folders left out.
      size: of the archive in bytes.
    """

    path: str
    members: Mapping[str, Member]
    size: int


_Key = tuple[str, object]
#: The one used last comes last.
_archives: collections.OrderedDict[_Key, Archive] = collections.OrderedDict()
#: Held by the thread that reads an archive.
_reading: dict[_Key, threading.Lock] = {}
_lock = threading.Lock()


def read_archive(path: str, opener: Opener = open_regular) -> Archive:
    """The central directory of an archive, kept for later calls.

    A local archive that has changed is read again.

    Raises:
      ArchiveError: it is no whole ZIP.
      OSError: or what `opener` raises; it cannot be read.
    """
    key = path, _identify(path)
    with _lock:
        reading = _reading.setdefault(key, threading.Lock())
    with reading:
        archive = _archives.get(key)
        if archive is None:
            with contextlib.closing(opener(path)) as file:
                end = _End(path, file)
                archive = Archive(path, _list_members(path, end), end.size)
        with _lock:
            _archives[key] = archive
            _archives.move_to_end(key)
            total = sum(len(kept.members) for kept in _archives.values())
            while total > MOST_MEMBERS and len(_archives) > 1:
                total -= len(_archives.popitem(last=False)[1].members)
    return archive


def _identify(path: str) -> object:
    if "://" in path:
        return None
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _list_members(path: str, end: _End) -> dict[str, Member]:
    try:
        with zipfile.ZipFile(cast(IO[bytes], end)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise ArchiveError(
            path,
            f"is no whole ZIP ({error}): cut off, still being fetched, or something "
            "else",
        ) from error
    members: dict[str, Member] = {}
    for info in infos:
        name = _read_name(info)
        if name.endswith("/"):
            continue
        member = Member(
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.CRC,
            info.compress_type,
            _find_problem(info, name),
        )
        other = members.setdefault(name, member)
        if (other.size, other.crc) != (member.size, member.crc):
            raise ArchiveError(path, f"holds two different files of the name {name!r}")
    return members


def _read_name(info: zipfile.ZipInfo) -> str:
    """A member's name as it was meant.

    Not all say that theirs is UTF-8 (macOS does not), and some of Windows write
    backslashes; else it is in code page 437, as the format has it.
    """
    name = info.filename
    if not (name.isascii() or info.flag_bits & _UTF8):
        plain = name.encode("cp437")
        with contextlib.suppress(UnicodeDecodeError):
            name = (_find_unicode_name(info.extra, plain) or plain).decode()
    return name.replace("\\", "/") if info.create_system == _DOS else name


def _find_unicode_name(extra: bytes, plain: bytes) -> bytes:
    """The name in UTF-8 among a member's extra fields; empty without one for it."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) > _UNICODE_PATH_HEAD.size:
            _, crc = _UNICODE_PATH_HEAD.unpack_from(field)
            if crc == zlib.crc32(plain):
                return field[_UNICODE_PATH_HEAD.size :]
    return b""


def _find_problem(info: zipfile.ZipInfo, name: str) -> str:
    """Why a member cannot be used, as far as the directory tells."""
    parts = name.split("/")
    if ".." in parts or parts[0] == "":
        return "its name leads out of the ZIP"
    if any(len(part.encode(errors="replace")) > MOST_NAME_BYTES for part in parts):
        return f"its name has a part of more than {MOST_NAME_BYTES} bytes"
    if info.create_system == _UNIX and stat.S_ISLNK(info.external_attr >> 16):
        return "it is a link"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if info.compress_type not in _METHODS:
        return (
            f"it is compressed by method {info.compress_type}, which is none of "
            f"{', '.join(_METHODS.values())}"
        )
    return ""


class _End:
    """What `zipfile` reads a directory through: in one go, and not more than fits."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._start = max(self.size - _TAIL_BYTES, 0)
        file.seek(self._start)
        self._tail = file.read(self.size - self._start)
        self._position = 0
        at = self._tail.rfind(b"PK\5\6")
        if 0 <= at <= len(self._tail) - _END.size:
            _, disk = _END.unpack_from(self._tail, at)
            if 0 < disk < 0xFFFF:
                raise ArchiveError(
                    path,
                    f"is the last of {disk + 1} parts of a ZIP; join them (zip -s 0 "
                    "PART.zip --out WHOLE.zip)",
                )

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        position = starts.get(whence, 0) + offset
        if position < 0:
            raise OSError(errno.EINVAL, "Invalid argument", self._path)
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def read(self, count: int = -1) -> bytes:
        if count > MOST_DIRECTORY_BYTES:
            raise ArchiveError(
                self._path,
                f"has a directory of {count:,} bytes; {MOST_DIRECTORY_BYTES:,} are "
                "the most that is read",
            )
        if self._position >= self._start:
            at = self._position - self._start
            data = self._tail[at : at + count if count >= 0 else None]
        else:
            self._file.seek(self._position)
            data = self._file.read(count)
        self._position += len(data)
        return data
