"""What a ZIP holds, and one member's bytes, held against their CRC-32.

The central directory is read once a process. A member is unpacked whole, as its
checksum covers all of it: in memory, or in a temporary file where it is large. Several
threads may do so at once, each through a handle of its own. Standard library only; who
can open more than local files hands in how.
"""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import os
import stat
import struct
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, BinaryIO, NamedTuple, cast

from pipeline.common.regular_file import open_regular
from pipeline.common.rejects import AudioError, Reason

#: Opens a file of any file system for reading; seekable.
Opener = Callable[[str], BinaryIO]

#: A member that unpacks to more is refused: no audio file of FMA has as much.
MOST_MEMBER_BYTES = 1 << 30
#: A larger member is unpacked to a temporary file.
MOST_IN_MEMORY = 4 << 20
#: Room for a million members; FMA's largest archive takes 11 MB.
MOST_DIRECTORY_BYTES = 128 << 20
#: What file systems take for a name.
MOST_NAME_BYTES = 255
#: Archives whose directories a process keeps.
MOST_ARCHIVES = 16

_READ_BYTES = 4 << 20
#: Signature, version, flags, method, time, CRC, sizes, lengths of name and extras.
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
#: Read along with a header, so that extras seldom take a second read.
_EXTRAS_BYTES = 256
_ENCRYPTED = 1
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
    """

    path: str
    members: Mapping[str, Member]


_archives: dict[tuple[str, object], Archive] = {}
_lock = threading.Lock()


def read_archive(path: str, opener: Opener = open_regular) -> Archive:
    """The central directory of an archive, kept for later calls.

    A local archive that has changed is read again.

    Raises:
      ArchiveError: it is no whole ZIP.
      OSError: or what `opener` raises; it cannot be read.
    """
    with _lock:  # Threads would all read it.
        key = path, _identify(path)
        if key not in _archives:
            if len(_archives) >= MOST_ARCHIVES:
                del _archives[next(iter(_archives))]
            with contextlib.closing(opener(path)) as file:
                _archives[key] = Archive(path, _list_members(path, file))
        return _archives[key]


def _identify(path: str) -> object:
    if "://" in path:
        return None
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _list_members(path: str, file: BinaryIO) -> dict[str, Member]:
    try:
        with zipfile.ZipFile(cast(IO[bytes], _Bounded(path, file))) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise ArchiveError(
            path,
            f"is no whole ZIP ({error}): cut off, still being fetched, or something "
            "else",
        ) from error
    members: dict[str, Member] = {}
    for info in infos:
        if info.is_dir():
            continue
        member = Member(
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.CRC,
            info.compress_type,
            _find_problem(info),
        )
        other = members.setdefault(info.filename, member)
        if (other.size, other.crc) != (member.size, member.crc):
            raise ArchiveError(
                path, f"holds two different files of the name {info.filename!r}"
            )
    return members


def _find_problem(info: zipfile.ZipInfo) -> str:
    """Why a member cannot be used, as far as the directory tells."""
    parts = info.filename.split("/")
    if ".." in parts or parts[0] == "":
        return "its name leads out of the ZIP"
    if any(len(part.encode(errors="replace")) > MOST_NAME_BYTES for part in parts):
        return f"its name has a part of more than {MOST_NAME_BYTES} bytes"
    if info.create_system == 3 and stat.S_ISLNK(info.external_attr >> 16):
        return "it is a link"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if info.compress_type not in _METHODS:
        return (
            f"it is compressed by method {info.compress_type}, which is none of "
            f"{', '.join(_METHODS.values())}"
        )
    return ""


class _Bounded:
    """What `zipfile` reads a directory through: not more at once than fits.

    Args:
      path: of the archive.
      file: opened.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        if count > MOST_DIRECTORY_BYTES:
            raise ArchiveError(
                self._path,
                f"has a directory of {count:,} bytes; {MOST_DIRECTORY_BYTES:,} are "
                "the most that is read",
            )
        return self._file.read(count)


def open_member(
    path: str, name: str, opener: Opener = open_regular
) -> io.BytesIO | BinaryIO:
    """Unpacks a member, and checks it.

    Args:
      path: of the archive.
      name: of the member.
      opener: opens the archive.

    Returns:
      A seekable file of the whole member, at its start: in memory up to
      `MOST_IN_MEMORY` bytes.

    Raises:
      AudioError: the member is damaged, too large, or the temporary folder is full.
      OSError: or what `opener` raises; the archive cannot be read, or holds no such
        member.
    """
    member = _find(path, name, opener)
    if member.size > MOST_MEMBER_BYTES:
        raise AudioError(
            Reason.TOO_LARGE,
            f"unpacks to {member.size:,} bytes; {MOST_MEMBER_BYTES:,} are the most",
        )
    with contextlib.closing(opener(path)) as file:
        source = _enter(file, member, name)
        if member.size <= MOST_IN_MEMORY:
            return io.BytesIO(_unpack(source, member, io.BytesIO()).getvalue())
        try:
            target = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
            return _unpack(source, member, target)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise AudioError(
                Reason.NO_SPACE,
                f"the temporary folder {tempfile.gettempdir()} has no room for "
                f"{member.size:,} bytes; make room there, or set TMPDIR to another",
            ) from error


def stream_member(path: str, name: str, opener: Opener = open_regular) -> BinaryIO:
    """Unpacks a member of any size while it is read, from start to end.

    Returns:
      A file that closes the archive's; reading it raises `AudioError` where the member
      is damaged.

    Raises:
      OSError: as for `open_member`.
    """
    member = _find(path, name, opener)
    file = opener(path)
    try:
        stream = _MemberStream(_enter(file, member, name), member, file)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), 1 << 16))
    except BaseException:
        file.close()
        raise


def _find(path: str, name: str, opener: Opener) -> Member:
    member = read_archive(path, opener).members.get(name)
    if member is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such file in the ZIP", name)
    if member.problem:
        raise OSError(errno.EINVAL, member.problem, name)
    return member


class _SourceError(Exception):
    """The archive itself gives no bytes; decompression raises `OSError`, too."""


class _Source:
    """A member's packed bytes.

    Args:
      head: those that were read along with the header.
      file: the archive, at the place behind them.
    """

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file

    def read(self, count: int) -> bytes:
        if self._head:
            data, self._head = self._head[:count], self._head[count:]
            return data
        try:
            return self._file.read(count)
        except OSError as error:
            raise _SourceError from error


def _enter(file: BinaryIO, member: Member, name: str) -> zipfile.ZipExtFile:
    """Reads the local header and opens what is behind it."""
    room = _LOCAL_HEADER.size + len(name.encode()) + _EXTRAS_BYTES
    file.seek(member.offset)
    data = file.read(room + min(member.packed, MOST_IN_MEMORY))
    start = 0
    if len(data) >= _LOCAL_HEADER.size:
        signature, *_, names, extras = _LOCAL_HEADER.unpack_from(data)
        start = _LOCAL_HEADER.size + names + extras if signature == b"PK\3\4" else 0
    if not start:
        raise AudioError(
            Reason.DAMAGED_IN_ZIP, "is not where the ZIP's directory says: damaged"
        )
    if start > len(data):
        file.seek(member.offset + start)
    info = zipfile.ZipInfo(name)
    info.compress_type = member.method
    info.compress_size, info.file_size = member.packed, member.size
    info.CRC = member.crc
    source = cast(IO[bytes], _Source(data[start:], file))
    return zipfile.ZipExtFile(source, "r", info)


def _read(source: zipfile.ZipExtFile, count: int) -> bytes:
    """Unpacks some bytes.

    Raises:
      AudioError: the member is damaged.
      OSError: the archive cannot be read.
    """
    try:
        return source.read(count)
    except _SourceError as error:
        raise error.__cause__ or error from None
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
        *(OSError, ValueError, struct.error),  # bz2's, and of LZMA's properties.
    ) as error:
        raise AudioError(
            Reason.DAMAGED_IN_ZIP, f"cannot be unpacked: {error or 'it is cut off'}"
        ) from error


def _check_size(size: int, member: Member) -> None:
    if size != member.size:
        raise AudioError(
            Reason.DAMAGED_IN_ZIP,
            f"unpacks to {size:,} bytes of the {member.size:,} that the ZIP's "
            "directory says",
        )


def _unpack(source: zipfile.ZipExtFile, member: Member, target: BinaryIO) -> io.BytesIO:
    size = 0
    while data := _read(source, _READ_BYTES):
        size += len(data)
        target.write(data)
    _check_size(size, member)
    target.seek(0)
    return cast(io.BytesIO, target)


class _MemberStream(io.RawIOBase):
    """A member while it is unpacked."""

    def __init__(
        self, source: zipfile.ZipExtFile, member: Member, file: BinaryIO
    ) -> None:
        self._source = source
        self._member = member
        self._file = file
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = _read(self._source, len(buffer))
        self._size += len(data)
        if not data and len(buffer):
            _check_size(self._size, self._member)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
