# SPDX-License-Identifier: MIT
"""What people give as a diff, as texts: files, standard input, mailboxes, directories, quilt series."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import email
import email.errors
import email.header
import email.message
import gzip
import io
import lzma
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.errors import BadDataError, PatchNotFoundError, UnsupportedError

MOST = 64 << 20
"""Bytes of a diff, unpacked; the largest step between two stable versions of the kernel has 4 MB."""

_SUFFIX = re.compile(r"\.(?:diff|patch)(?:\.(?:gz|xz|bz2|zst))?\Z")
_COVER = re.compile(r"(?:v\d+-)?0000-cover-letter\.")
_FROM = re.compile(rb"^From \S+ .*\d\d:\d\d:\d\d.*\n(?=[A-Za-z-]+: )", re.MULTILINE)
_HEADER = re.compile(rb"(?:[A-Za-z][A-Za-z0-9-]*:[^\n]*\n(?:[ \t][^\n]*\n)*){2,}\n")
_MAILED = re.compile(rb"^(?:From|Subject|Date|Message-Id|Content-Type):", re.IGNORECASE | re.MULTILINE)
CVE = re.compile(r"\bCVE-\d{4}-\d{4,19}\b")
_CVE_LINE = re.compile(r"^[ \t]*(?:CVE(?:s|-ID)?: *)?CVE-\d{4}-\d{4,19}(?:[ ,]+CVE-\d{4}-\d{4,19})*\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Text:
    """One diff.

    Attributes:
        name: What it is called, for messages.
        text: Its text, with line breaks as on Unix; bytes that are no UTF-8 as surrogates.
        strip: How many leading parts of its names to leave out; None when nobody said.
        cves: The CVE names in the header of its mail, or in lines of their own.
    """

    name: str
    text: str
    strip: int | None = None
    cves: tuple[str, ...] = ()


def read(given: Sequence[str | os.PathLike[str]]) -> list[Text]:
    """Read diffs, in the order in which they are to be applied.

    Args:
        given: Files; "-" for standard input; directories with a quilt series, or with files ``*.patch`` and ``*.diff``,
            in the order of their names.

    Raises:
        PatchNotFoundError: There is no such file.
        BadDataError: It cannot be read, is no file, or too large.
        UnsupportedError: It is compressed with zstd, and zstandard is missing.
    """
    return [text for item in given for text in _texts(os.fspath(item))]


def _texts(name: str) -> Iterator[Text]:
    if name == "-":
        with open(0, "rb", closefd=False) as stdin:
            yield from _mails("standard input", _unpacked(stdin.read(MOST + 1), "standard input"), None)
        return
    path = Path(name)
    try:
        if not path.is_dir():
            yield from (_quilt(path) if path.name == "series" else _file(path, None))
            return
        for series in (path / "series", path / "patches/series"):
            if series.is_file():
                yield from _quilt(series)
                return
        files = sorted(item for item in path.iterdir() if _SUFFIX.search(item.name))
    except FileNotFoundError as error:
        raise PatchNotFoundError(f"there is no file {error.filename}", after="nothing was written",
                                 remedy="name a diff, or - for standard input") from error
    except OSError as error:
        raise BadDataError(f"{error.filename or name} cannot be read: {error.strerror or error}",
                           after="nothing was written") from error
    if not files:
        raise BadDataError(f"{name} is a directory without a series file, *.patch or *.diff",
                           after="nothing was written", remedy="name the files in it")
    for file in files:
        if len(files) == 1 or not _COVER.match(file.name):
            yield from _texts(str(file))


def _quilt(series: Path) -> Iterator[Text]:
    """Yield the diffs of a quilt series: a name in each line, perhaps -pN, and comments."""
    for line in series.read_text(errors="surrogateescape").splitlines():
        words = re.sub(r"(?:^|\s)#.*", "", line).split()
        if not words:
            continue
        strip: int | None = 1  # as quilt does
        for word in words[1:]:
            found = re.fullmatch(r"-p(\d{1,2}|ab)", word)
            if found is None:
                raise BadDataError(f"{series}: {word!r} after {words[0]} is not known", after="nothing was written",
                                   remedy="-pN is: how many leading parts of the names to leave out")
            strip = None if found[1] == "ab" else int(found[1])
        yield from _file(series.parent / words[0], strip)


def _file(path: Path, strip: int | None) -> Iterator[Text]:
    """Yield the diffs of a file, which is a regular one, or a pipe that the caller has opened, of a shell's <(…)."""
    opened = re.fullmatch(r"/dev/stdin|(?:/dev|/proc/(?:self|\d+))/fd/\d+", str(path))
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if opened else os.O_NONBLOCK)
    with open(os.open(path, flags), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) and (flags & os.O_NONBLOCK or not stat.S_ISFIFO(facts.st_mode)):
            raise BadDataError(f"{path} is not a file", after="nothing was written",
                               remedy="name a file; for what comes through a pipe, give - and redirect standard input")
        data = file.read(MOST + 1)
    yield from _mails(str(path), _unpacked(data, str(path)), strip)


def _unpacked(data: bytes, name: str) -> bytes:
    """Unpack what is compressed, as long as it is not too large."""
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MOST + 1)
        elif data.startswith(b"\xfd7zXZ\0"):
            data = _xz(data)
        elif data.startswith(b"BZh"):
            data = bz2.BZ2File(io.BytesIO(data)).read(MOST + 1)
        elif data.startswith(b"\x28\xb5\x2f\xfd"):
            data = _zstd(data)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise BadDataError(f"{name} is compressed, and damaged: {error}", after="nothing was written",
                           remedy="get it again") from error
    if len(data) > MOST:
        raise BadDataError(f"{name} is larger than {MOST >> 20} MiB", after="nothing was written", remedy="split it")
    return data


def _xz(data: bytes) -> bytes:
    """Unpack one stream or several, in bounded memory, which lzma.open() does not offer."""
    found = b""
    while data and len(found) <= MOST:
        stream = lzma.LZMADecompressor(memlimit=256 << 20)
        found += stream.decompress(data, MOST + 1 - len(found))
        if not stream.eof and len(found) <= MOST:
            raise EOFError("it ends too early")
        data = stream.unused_data.lstrip(b"\0")
    return found


def _zstd(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise UnsupportedError("reading .zst diffs needs the package zstandard", feature="zstd",
                               remedy="install zstandard, or unpack the diff with zstd -d") from None
    try:
        with zstandard.ZstdDecompressor(max_window_size=128 << 20).stream_reader(data) as reader:
            return reader.read(MOST + 1)
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error


def _mails(name: str, data: bytes, strip: int | None) -> Iterator[Text]:
    """Yield the mails of a mailbox, or the whole when it is none."""
    data = data.removeprefix(codecs.BOM_UTF8)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes it
        data = data.decode("utf-16", errors="replace").encode()
    starts = [found.start() for found in _FROM.finditer(data)]
    if not starts or data[:starts[0]].strip():
        starts = [0, *starts]
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(data)], strict=True)):
        which = f"{name} (mail {number + 1})" if len(starts) > 1 else name
        yield _mail(which, data[start:end], strip)


def _mail(name: str, data: bytes, strip: int | None) -> Text:
    """Return a mail as it is read: what it is encoded in for the way is undone."""
    rest = data.replace(b"\r\n", b"\n")
    first, _, after = rest.partition(b"\n") if rest.startswith(b"From ") else (b"", b"", rest)
    header = _HEADER.match(after)
    if header is None or not _MAILED.search(header[0]):
        text = data.decode(errors="surrogateescape")
        return Text(name, _unix(text), strip, _cves("", text))
    message = email.message_from_bytes(after)
    subject = str(message.get("Subject", ""))
    with contextlib.suppress(LookupError, ValueError, email.errors.MessageError):
        subject = str(email.header.make_header(email.header.decode_header(subject)))
    bodies = [part for part in message.walk() if part.get_content_maintype() == "text"]
    if message.is_multipart() or any(_encoded(part) for part in bodies):
        body = b"\n".join(part.get_payload(decode=True) or b"" for part in bodies)  # type: ignore[misc]
    else:
        body = after[header.end():]
    top = (first + b"\n" if first else b"") + header[0]
    text = (top + body).decode(errors="surrogateescape")
    return Text(name, _unix(text), strip, _cves(subject, body.decode(errors="replace")))


def _encoded(part: email.message.Message) -> bool:
    return str(part.get("Content-Transfer-Encoding", "")).strip().lower() in ("base64", "quoted-printable")


def _cves(subject: str, body: str) -> tuple[str, ...]:
    """Return the names in a subject, and those that stand in lines of their own before the diff."""
    message = re.split(r"^(?:diff |--- |Index: )", _unix(body), maxsplit=1, flags=re.MULTILINE)[0]
    found = CVE.findall(subject) + [name for line in _CVE_LINE.findall(message) for name in CVE.findall(line)]
    return tuple(dict.fromkeys(found))


def _unix(text: str) -> str:
    """Return a text with the line breaks that the kernel's source has, when all that heads a hunk has those of DOS."""
    heads = re.findall(r"^(?:@@ -|\+\+\+ ).*$", text, re.MULTILINE)
    if heads and all(line.endswith("\r") for line in heads):
        return text.replace("\r\n", "\n")
    return text
