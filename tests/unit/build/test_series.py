# SPDX-License-Identifier: MIT
# ruff: noqa: E501 (texts of diffs)
"""What people give as a diff: each form comes out as the same text, and what is none is named as what it is."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import os
import quopri
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pylivepatch import BadDataError, LivepatchError, PatchNotFoundError
from pylivepatch.build import series, unified

DIFF = "--- a/fs/x.c\n+++ b/fs/x.c\n@@ -1 +1 @@\n-ä\n+b\n"
MAIL = ("From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: Some Body <s@example.org>\n"
        "Subject: [PATCH {n}/2] fs: CVE-2026-1234{n}:\n the fix\n\nWords, like those of CVE-2020-1111.\n\n"
        "CVE-2026-9999\nCVE: CVE-2025-0001\n---\n fs/x.c | 2 +-\n\n{diff}-- \n2.39.2\n\n")  # fmt: skip


def one(path: Path | str) -> series.Text:
    """Return the only diff of a file."""
    [text] = series.read([path])
    return text


def zst(data: bytes) -> bytes:
    """Compress as zstd does."""
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("packed", [bytes, gzip.compress, lzma.compress, bz2.compress, zst,
                                    lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
                                    lambda data: lzma.compress(data[:9]) + lzma.compress(data[9:])])
@pytest.mark.parametrize("encoded", [
    str.encode, lambda text: codecs.BOM_UTF8 + text.encode(), lambda text: text.encode("utf-16"),
    lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"), lambda text: text.replace("\n", "\r\n").encode(),
])  # fmt: skip
def test_compression_and_encoding(
    packed: Callable[[bytes], bytes], encoded: Callable[[str], bytes], tmp_path: Path,
) -> None:
    """They are told by the first bytes, not by the name; line breaks are those of the source."""
    path = tmp_path / "x.diff"
    path.write_bytes(packed(encoded(DIFF)))
    assert one(path).text == DIFF


def test_bytes_that_are_no_utf_8_and_line_breaks_of_the_source_stay(tmp_path: Path) -> None:
    """Files of the kernel have such bytes, and a few have DOS line breaks; form feeds break no line."""
    raw = b"--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-\xe4\f\x85\r\n+\xf6\r\n c\r\n"
    (tmp_path / "x.diff").write_bytes(raw)
    text = one(tmp_path / "x.diff").text
    assert text.encode(errors="surrogateescape") == raw
    assert len(unified.read(text, "x").changes[0].hunks[0].lines) == 3


def test_mails(tmp_path: Path) -> None:
    """A mailbox has one diff in each mail; CVE names are those of the subject, and those that have a line of their own."""
    path = tmp_path / "x.mbox"
    path.write_text("".join(MAIL.format(n=n, diff=DIFF) for n in (1, 2)))
    first, second = series.read([path])
    assert first.name == f"{path} (mail 1)"
    assert first.text + second.text == path.read_text()
    assert first.cves == ("CVE-2026-12341", "CVE-2026-9999", "CVE-2025-0001")
    assert second.cves[0] == "CVE-2026-12342"
    assert len(unified.read(second.text, "x").changes) == 1


def test_a_mail_that_is_encoded_for_the_way(tmp_path: Path) -> None:
    """Its body is decoded."""
    path = tmp_path / "x.eml"
    head = "Message-Id: <1>\nSubject: =?utf-8?q?CVE-2026-4711=3A_=C3=A4?=\nContent-Type: text/plain; charset=utf-8\n"
    quoted = quopri.encodestring(f"long {'x' * 99}\n{DIFF}".encode())
    path.write_bytes(f"{head}Content-Transfer-Encoding: quoted-printable\n\n".encode() + quoted)
    assert b"=C3=A4" in quoted
    text = one(path)
    assert text.text.endswith(DIFF)
    assert text.cves == ("CVE-2026-4711",)
    path.write_text(head + "Content-Transfer-Encoding: base64\n\n" + codecs.encode(DIFF.encode(), "base64").decode())
    assert one(path).text.endswith(DIFF)


@pytest.mark.parametrize("header", ["Subject: =?nope?b?AAAA?=", "Subject: =?utf-8?b?A?=", "Content-Type: text/plain; charset=x",
                                    "Content-Type: multipart/mixed; boundary=b", "Content-Transfer-Encoding: nope"])
def test_headers_that_are_none(header: str, tmp_path: Path) -> None:
    """What a header says wrong does not matter."""
    (tmp_path / "x.eml").write_text(f"From: a\n{header}\n\n{DIFF}")
    assert one(tmp_path / "x.eml").text


def test_standard_input_and_a_pipe_of_the_shell(tmp_path: Path) -> None:
    """`-` is standard input; what the shell passes as /dev/fd/N is read."""
    (tmp_path / "x.diff").write_text(DIFF)
    program = ("import sys; from pylivepatch.build import series; "
               "sys.stdout.buffer.write(series.read(sys.argv[1:])[0].text.encode())")  # fmt: skip
    for command in ('cat x.diff | "$0" -c "$1" -', '"$0" -c "$1" <(cat x.diff)', '"$0" -c "$1" /dev/stdin <x.diff'):
        done = subprocess.run(["bash", "-c", command, sys.executable, program], cwd=tmp_path, capture_output=True,
                              check=False, timeout=60)  # fmt: skip
        assert done.stdout.decode() == DIFF, done.stderr.decode()


def test_directories(tmp_path: Path) -> None:
    """A quilt series has an order and levels; other directories have the order of names, and cover letters."""
    for name, text in (("b.patch", DIFF), ("a.diff.xz", DIFF), ("0000-cover-letter.patch", "hello"), ("README", "no")):
        data = text.encode()
        (tmp_path / name).write_bytes(lzma.compress(data) if name.endswith("xz") else data)
    assert [(Path(text.name).name, text.strip) for text in series.read([tmp_path])] == [
        ("a.diff.xz", None), ("b.patch", None)]  # fmt: skip
    (tmp_path / "series").write_text("# ours\nb.patch -p0 # why\n\na.diff.xz\n  b.patch -pab\n")
    for given_path in (tmp_path, tmp_path / "series"):
        assert [(Path(text.name).name, text.strip) for text in series.read([given_path])] == [
            ("b.patch", 0), ("a.diff.xz", 1), ("b.patch", None)]  # fmt: skip
    (tmp_path / "top").mkdir()
    (tmp_path / "top/patches").symlink_to(tmp_path)
    assert len(series.read([tmp_path / "top"])) == 3
    (tmp_path / "series").write_text("none.patch\n")
    with pytest.raises(PatchNotFoundError, match=r"none\.patch"):
        series.read([tmp_path])
    (tmp_path / "series").write_text("b.patch -R\n")
    with pytest.raises(BadDataError, match=r"'-R' after b\.patch"):
        series.read([tmp_path])


@pytest.mark.parametrize(("name", "words"), [
    ("empty/", "without a series file"), ("fifo", "is not a file"), ("/dev/zero", "is not a file"),
    ("/dev/null", "is not a file"), ("loop", "cannot be read"), ("large", "larger than 64 MiB"),
    ("bomb.gz", "larger than 64 MiB"), ("bomb.xz", "larger than 64 MiB"), ("bomb.bz2", "larger than 64 MiB"),
    ("bomb.zst", "larger than 64 MiB"), ("cut.gz", "damaged"), ("cut.xz", "damaged"), ("bad.zst", "damaged"),
    ("bad.bz2", "damaged"), ("x.diff/y", "cannot be read"), ("a" * 300, "cannot be read"),
])  # fmt: skip
def test_what_is_no_diff(name: str, words: str, tmp_path: Path) -> None:
    """It ends at once, with an error that says what it is."""
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "x.diff").write_text(DIFF)
    with open(tmp_path / "large", "wb") as file:
        file.truncate(65 << 20)
    for suffix, packed in (("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress), ("zst", zst)):
        if name == f"bomb.{suffix}":
            (tmp_path / name).write_bytes(packed(bytes(65 << 20)))
        if name in (f"cut.{suffix}", f"bad.{suffix}"):
            (tmp_path / name).write_bytes(packed(DIFF.encode())[:20] if name[0] == "c" else packed(b"")[:8] + b"xxx")
    with pytest.raises(BadDataError, match=words) as caught:
        series.read([tmp_path / name])
    assert caught.value.after == "nothing was written"


def test_what_does_not_exist(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(PatchNotFoundError, match=r"there is no file .*none\.diff"):
        series.read([tmp_path / "none.diff"])


@pytest.fixture
def ordinary() -> Iterator[None]:
    """Not root, who may read all."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_what_may_not_be_read(tmp_path: Path, ordinary: None) -> None:
    """It is said."""
    with contextlib.suppress(PermissionError):  # root's directory, where nobody else may write
        (tmp_path / "x.diff").touch(0)
    with pytest.raises(BadDataError, match="Permission denied"):
        series.read([tmp_path / "x.diff"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([
        b"From a@b Mon Sep 17 00:00:00 2001\n", b"Subject: x\n", b"From: =?utf-8?q?=\n", b"Content-Type: multipart/mixed; boundary=b\n",
        b"Content-Type: text/plain; charset=nope\n", b"Content-Transfer-Encoding: base64\n", b"\n", b"--b\n", b"--b--\n", b"\r\n",
        DIFF.encode(), b"\xff", b"\0", b"Subject: =?nope?b?AAAA?=\n", b"diff --git ", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0",
    ]), max_size=12).map(b"".join)))  # fmt: skip
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    """No file ends in another error."""
    path = tmp_path / "x"
    path.write_bytes(data)
    try:
        for text in series.read([path]):
            unified.read(text.text, text.name)
            text.text.encode(errors="surrogateescape")
    except LivepatchError as error:
        assert error.message  # noqa: PT017


def test_the_largest_that_is_read(tmp_path: Path) -> None:
    """A diff of many thousand files is read in linear time; that is seen by its ending at all."""
    text = "".join(f"--- a/fs/{n}.c\n+++ b/fs/{n}.c\n@@ -1,3 +1,3 @@\n a\n-b\n+c\n d\n" for n in range(20000))
    stream = io.StringIO()
    stream.write(text + "12a\n" * 20000 + " X- @@" * 20000)
    (tmp_path / "x.diff").write_text(stream.getvalue())
    [read] = series.read([tmp_path / "x.diff"])
    assert len(unified.read(read.text, "x").changes) == 20000
