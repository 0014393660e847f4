"""What a file is: by its extension, or by its first bytes where the extension is not known."""

import re

KINDS = (
    "image",
    "audio",
    "video",
    "text",
    "table",
    "shard",
    "array",
    "sequence",
)  # codes are positions

_EXTENSIONS = {
    "image": "jpg jpeg jpe jfif png webp bmp dib gif tif tiff ppm pgm pbm pnm",
    "audio": "wav flac ogg oga mp3 opus aif aiff",
    "video": "mp4 avi mov mkv webm m4v mpg mpeg",
    "text": "txt md html htm xml json jsonl ndjson yaml yml toml log py rst tex cls "
    "c h cc cpp hpp cs java js go rs rb php pl lua r jl m swift kt scala hs sh sql css "
    "jsonl.gz ndjson.gz",
    "table": "csv tsv parquet ts csv.gz tsv.gz",
    "shard": "tar tgz tar.gz",
    "array": "npy npz",
    "sequence": "fasta fa faa fas fsa fasta.gz fa.gz faa.gz",
}
CODES: dict[bytes, int] = {
    extension.encode(): KINDS.index(kind)
    for kind, extensions in _EXTENSIONS.items()
    for extension in extensions.split()
}
# Neither data nor worth opening to find out.
OTHER = {
    e.encode()
    for e in [
        "pdf",
        "zip",
        "gz",
        "bz2",
        "xz",
        "7z",
        "db",
        "ini",
        "lock",
        "tmp",
        "part",
        "bak",
        "pt",
        "pth",
        "safetensors",
    ]
}

PACKED = {
    b"tar",
    b"fasta",
    b"fa",
    b"faa",
    b"csv",
    b"tsv",
    b"jsonl",
    b"ndjson",
}  # that are read with .gz behind them

# What a text or a file of no known kind is called that tells about the data around it.
ABOUT = re.compile(
    rb"(licen[cs]e|readme)([._-][a-z._-]*)?|(notice|citation|sha256sums|md5sums)(\.[a-z]+)?|.*\.md5",
    re.IGNORECASE,
)

TEXT = KINDS.index("text")
FASTA = re.compile(rb"\s*>[^\r\n]*[\r\n]+[A-Za-z*-]{5,}\s")  # a heading, then residues


def extension(name: bytes) -> bytes:
    """Lower-case extension without the dot; b"" where there is none."""
    stem, dot, last = name.rpartition(b".")
    if not dot or not stem or b"/" in last:
        return b""
    last = last.lower()
    if last == b"gz" and extension(stem) in PACKED:
        return extension(stem) + b".gz"
    return last


def sniff(head: bytes) -> str | None:
    """The kind that the first 16 bytes (a tar: 512) show, or None.

    >>> sniff(b"\\x89PNG\\r\\n\\x1a\\n")
    'image'
    """
    if head[:3] == b"\xff\xd8\xff" or head[:8] == b"\x89PNG\r\n\x1a\n":
        return "image"
    if head[:6] in (b"GIF87a", b"GIF89a") or head[:4] in (
        b"II*\0",
        b"MM\0*",
        b"II+\0",
        b"MM\0+",
    ):
        return "image"
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"WAVE": "audio", b"AVI ": "video"}.get(head[8:12])
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "image"
    if head[:2] in (b"P4", b"P5", b"P6") and head[2:3].isspace():
        return "image"
    if head[:4] in (b"fLaC", b"OggS") or head[:3] == b"ID3":
        return "audio"
    if head[4:8] == b"ftyp":
        return "video"
    if head[:4] == b"PAR1":
        return "table"
    if head[:6] == b"\x93NUMPY":
        return "array"
    if head[257:262] == b"ustar":
        return "shard"
    if FASTA.match(head):
        return "sequence"
    return None


def instead(raw: bytes) -> str | None:
    """What a file often is that only has the name of a picture, a recording or a clip.

    >>> instead(bytes(4))
    'only zero bytes'
    """
    if raw[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, perhaps saved by a download that failed"
    return None if any(raw) else "only zero bytes"
