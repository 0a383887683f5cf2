"""One member's bytes of a ZIP, held against their CRC-32.

A member is unpacked whole, as its checksum covers all of it: in memory, or in a
temporary file where it is large. Several threads may do so at once, each through a
handle of its own. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import struct
import tempfile
import zipfile
import zlib
from typing import IO, BinaryIO, cast

from pipeline.common.regular_file import open_regular
from pipeline.common.rejects import AudioError, Reason
from pipeline.inputs.archives import paths
from pipeline.inputs.archives.directory import Archive, Member, Opener, read_archive

#: A member that unpacks to more is refused: no audio file of FMA has as much.
MOST_MEMBER_BYTES = 1 << 30
#: A larger member is unpacked to a temporary file.
MOST_IN_MEMORY = 4 << 20

_READ_BYTES = 4 << 20
#: Signature, version, flags, method, time, CRC, sizes, lengths of name and extras.
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
#: Read along with a header, so that extras seldom take a second read.
_EXTRAS_BYTES = 256
#: A store is asked once for whole blocks, and again for the rest of one.
_BLOCK_BYTES = 1 << 16


def open_local(path: str) -> BinaryIO:
    """Opens a file of this machine, which may lie in a ZIP.

    Raises:
      OSError: it is not there, or cannot be read.
      AudioError: it is damaged in its ZIP.
    """
    found = paths.split(path)
    return open_regular(path) if found is None else open_member(*found)


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
    archive = read_archive(path, opener)
    member = _find(archive, name)
    if member.size > MOST_MEMBER_BYTES:
        raise AudioError(
            Reason.TOO_LARGE,
            f"unpacks to {member.size:,} bytes; {MOST_MEMBER_BYTES:,} are the most",
        )
    with contextlib.closing(opener(path)) as file:
        source = _enter(file, archive, name)
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
    archive = read_archive(path, opener)
    member = _find(archive, name)
    file = opener(path)
    try:
        stream = _MemberStream(_enter(file, archive, name), member, file)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), 1 << 16))
    except BaseException:
        file.close()
        raise


def _find(archive: Archive, name: str) -> Member:
    member = archive.members.get(name)
    if member is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such file in the ZIP", name)
    if member.problem:
        raise OSError(errno.EINVAL, member.problem, name)
    return member


class _SourceError(Exception):
    """The archive itself gives no bytes; decompression raises `OSError`, too."""


class _Source:
    """A member's packed bytes."""

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


def _enter(file: BinaryIO, archive: Archive, name: str) -> zipfile.ZipExtFile:
    """Reads the local header and opens what is behind it."""
    member = archive.members[name]
    room = _LOCAL_HEADER.size + len(name.encode()) + _EXTRAS_BYTES
    # A ZIP without its beginning has members before it.
    file.seek(max(member.offset, 0))
    count = room + min(member.packed, MOST_IN_MEMORY)
    count = -(-count // _BLOCK_BYTES) * _BLOCK_BYTES
    data = file.read(max(min(count, archive.size - member.offset), 0))
    start = 0
    if len(data) >= _LOCAL_HEADER.size and member.offset >= 0:
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
    """Unpacks some bytes."""
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
