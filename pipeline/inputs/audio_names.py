"""What a file's name and first bytes say about audio. Standard library only."""

from __future__ import annotations

#: Extensions that are taken for audio.
AUDIO_EXTENSIONS = frozenset(
    (
        *("aac", "ac3", "aif", "aifc", "aiff", "alac", "amr", "ape", "au", "caf"),
        *("flac", "m4a", "m4b", "mka", "mp2", "mp3", "mp4", "mpc", "oga", "ogg"),
        *("opus", "rf64", "snd", "spx", "tta", "w64", "wav", "wave", "weba", "webm"),
        *("wma", "wv"),
    )
)
#: Extensions of what often lies beside music; nobody looks into these files.
OTHER_EXTENSIONS = frozenset(
    (
        *("bmp", "csv", "cue", "db", "doc", "docx", "gif", "gz", "htm", "html", "ini"),
        *("jpeg", "jpg", "json", "jsonl", "lnk", "log", "lrc", "m3u", "m3u8", "md"),
        *("md5", "nfo", "npy", "npz", "parquet", "pdf", "pls", "png", "py", "rtf"),
        *("sfv", "sha1", "sha256", "srt", "svg", "tar", "tfrecord", "tif", "tiff"),
        *("toml", "torrent", "tsv", "txt", "url", "vtt", "webp", "xls", "xlsx", "xml"),
        *("yaml", "yml", "zip"),
    )
)
#: Number of a file's first bytes that `looks_like_audio` takes.
HEAD_BYTES = 64

#: How files begin that hold audio (or may, as MP4, Matroska and ASF).
_MAGIC = (
    *(b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b"ID3", b".snd"),
    *(b"caff", b"wvpk", b"MAC ", b"TTA1", b"MPCK", b"MP+", b"#!AMR", b"ADIF"),
    *(b"\x0b\x77", b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11", b"dns."),
)


def split_extension(name: str) -> tuple[str, str]:
    """Splits a known audio extension off; what is not known is none.

    Returns:
      The name without it, and the extension with its dot or nothing.
    """
    stem, dot, extension = name.rpartition(".")
    if extension.lower() not in AUDIO_EXTENSIONS or stem[-1:] in ("", "/"):
        return name, ""
    return stem, dot + extension


def is_audio_name(path: str) -> bool | None:
    """Whether an extension is one of audio; None where its kind is not known."""
    extension = path.rpartition(".")[2].lower()
    if extension in AUDIO_EXTENSIONS:
        return True
    return False if extension in OTHER_EXTENSIONS else None


def looks_like_audio(head: bytes) -> bool:
    """Whether a file's first `HEAD_BYTES` are those of a format that holds audio."""
    if head.startswith(_MAGIC) or head[4:8] == b"ftyp":
        return True
    # MPEG audio: eleven set bits, then version, layer (0 is ADTS; I, which begins as
    # texts in UTF-16 do, is out of use), bit rate and sample rate.
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] >= 0xE0
        and head[1] >> 3 & 3 != 1
        and head[1] >> 1 & 3 != 3
        and head[2] >> 4 != 15
        and head[2] >> 2 & 3 != 3
    )
