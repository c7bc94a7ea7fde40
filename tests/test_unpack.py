"""Members of archives, honest ones and those of people who mean harm."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from archives import entry, pack, pack_tar

from nmt.data import unpack
from nmt.data.unpack import read_members
from nmt.errors import UserError

NOISE = random.Random(1).randbytes(700_000)
MEMBERS = {"a/x.en": b"one\ntwo\n", "a/other": NOISE, "a/x.de": b"eins\nzwei\n", "a/e.fr": b""}


def read(archive: Path, *wanted: str) -> dict[str, bytes]:
    found = {}
    for name, reader in read_members(archive, wanted):
        found[name] = b"".join(iter(reader.read, b""))
    return found


@pytest.mark.parametrize("name", ["c.tgz", "c.tar.gz", "c.tar", "c.zip"])
def test_gives_what_was_packed(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / name, MEMBERS)
    assert read(archive, *MEMBERS) == MEMBERS
    assert read(archive, "a/x.de") == {"a/x.de": MEMBERS["a/x.de"]}


def test_names_with_a_leading_dot_and_gzip_inside(tmp_path: Path) -> None:
    packed = gzip.compress(NOISE)
    assert read(pack(tmp_path / "c.tar", {"./x.gz": packed}), "x.gz") == {"x.gz": NOISE}
    assert read(pack(tmp_path / "c.zip", {"x.gz": packed}), "x.gz") == {"x.gz": NOISE}
    assert read(pack(tmp_path / "x.en.gz", {"": NOISE}), "x.en") == {"x.en": NOISE}


def test_a_member_need_not_be_read(tmp_path: Path) -> None:
    archive = pack(tmp_path / "c.tgz", MEMBERS)
    assert [name for name, _ in read_members(archive, MEMBERS)] == list(MEMBERS)


@pytest.mark.parametrize("name", ["c.tgz", "c.zip", "c.gz"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"c\.\w+: it does not hold a/no"):
        read(pack(tmp_path / name, MEMBERS), "a/no")


def test_nothing_is_written_by_names_that_lead_elsewhere(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    outside = {"../evil": b"!", "/tmp/evil-of-nmt": b"!", "a/../../evil": b"!", "a/x.en": b"fine\n"}
    for name in ("c.tgz", "c.zip"):
        archive = pack(inner / name, outside)
        assert read(archive, "a/x.en") == {"a/x.en": b"fine\n"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c.tgz", "c.zip", "inner"]
    assert not Path("/tmp/evil-of-nmt").exists()


@pytest.mark.parametrize(
    "type",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_are_refused(tmp_path: Path, type: bytes) -> None:
    archive = pack_tar(tmp_path / "c.tgz", [(entry("x", type=type, link="/etc/passwd"), b"")])
    with pytest.raises(UserError, match="x in it is a link, a folder or a device"):
        read(archive, "x")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as folder:
        folder.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        read(tmp_path / "c.zip", "x")


def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    archive = pack_tar(tmp_path / "c.tgz", [(entry("x", 1), b"a"), (entry("./x", 1), b"b")])
    with pytest.raises(UserError, match="holds x twice"):
        read(archive, "x")


@pytest.mark.parametrize("name", ["c.tgz", "c.zip", "x.gz", "inner.tar"])
def test_bombs_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandfold; also where the bomb is not what was asked for, but stands before it."""
    monkeypatch.setattr(unpack, "SLACK_BYTES", 1 << 16)
    zeros = bytes(40 << 20)
    if name == "inner.tar":
        archive, wanted = pack(tmp_path / name, {"x.gz": gzip.compress(zeros)}), "x.gz"
    elif name == "c.tgz":
        archive, wanted = pack(tmp_path / name, {"bomb": zeros, "x": b"a"}), "x"
    else:
        archive, wanted = pack(tmp_path / name, {"x": zeros}), "x"
    with pytest.raises(UserError, match="more than 200 times its size"):
        read(archive, wanted)


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    """GNU's sparse files state a size that no bytes stand for."""
    info = entry("x")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = header[398:410] = b"00000000000\0"
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "c.tar").write_bytes(bytes(header) + bytes(10240))
    with pytest.raises(UserError, match="no file"):
        read(tmp_path / "c.tar", "x")


@pytest.mark.parametrize("name", ["c.tgz", "c.tar", "c.zip", "a/x.en.gz"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.99])
def test_what_is_cut_short_is_refused(tmp_path: Path, name: str, where: float) -> None:
    archive = pack(tmp_path / name, MEMBERS)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * where)])
    wanted = ["x.en"] if name.endswith("x.en.gz") else list(MEMBERS)
    with pytest.raises(UserError, match=r"cannot be unpacked|does not hold|is empty"):
        read(archive, *wanted)


@pytest.mark.parametrize("name", ["c.tgz", "c.tar", "c.zip", "x.gz"])
def test_what_is_no_archive_is_refused(tmp_path: Path, name: str) -> None:
    for content in (b"", b"<html>moved</html>", os.urandom(5000)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"cannot be unpacked|does not hold|is empty") as caught:
            read(tmp_path / name, "x")
        assert "\n" not in str(caught.value)
    (tmp_path / "c.rar").write_bytes(b"Rar!")
    with pytest.raises(UserError, match="is it an archive"):
        read(tmp_path / "c.rar", "x")


def test_damage_after_what_is_wanted_is_seen(tmp_path: Path) -> None:
    """The checksum of gzip stands at the end."""
    archive = pack(tmp_path / "c.tgz", {"x": b"a\n", "y": NOISE})
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        read(archive, "x")


def test_a_locked_zip_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as folder:
        folder.writestr("x", b"text")
    content = bytearray(buffer.getvalue())
    content[6] |= 1  # in both headers: encrypted
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "c.zip").write_bytes(content)
    with pytest.raises(UserError, match="password"):
        read(tmp_path / "c.zip", "x")
