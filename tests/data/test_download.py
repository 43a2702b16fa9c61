"""Downloads from a server that breaks off, lies, and is not there; nothing outside this machine is asked."""

import hashlib
import http.client
import io
import itertools
import json
import ssl
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from layouts import write_coco, write_cub

from t2i_zoo.data import CUB200, COCOCaptions, Flowers102, birds, coco, download, flowers
from t2i_zoo.data.download import Remote, fetch
from t2i_zoo.errors import T2IError

BODY = bytes(range(256)) * 2000  # half a megabyte


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def whole_blocks(count: int) -> int:
    """What is kept of so many bytes before a connection breaks off."""
    return count // download.BLOCK * download.BLOCK


def get(remote: Remote, folder: Path) -> None:
    fetch([remote], folder, progress=False)


def test_a_file_comes_whole_and_once(server: Any, tmp_path: Path) -> None:
    server.files["a.bin"] = BODY
    remote = Remote("a.bin", "a.bin", (server.url("a.bin"),), hash=sha(BODY))
    for _ in range(2):
        get(remote, tmp_path / "new")
    assert (tmp_path / "new/a.bin").read_bytes() == BODY
    assert server.asked == [("a.bin", None)]
    record = json.loads((tmp_path / "new/downloads.json").read_text())
    assert record == {"a.bin": {"url": server.url("a.bin"), "bytes": len(BODY), "hash": sha(BODY)}}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {".download.lock", "a.bin", "downloads.json"}


def test_it_goes_on_where_it_broke_off(server: Any, tmp_path: Path) -> None:
    server.files["a.bin"] = BODY
    server.breaks["a.bin"] = [100_000, 0, 150_000]
    get(Remote("a.bin", "a.bin", (server.url("a.bin"),), hash=sha(BODY)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    first, second = whole_blocks(100_000), whole_blocks(100_000) + whole_blocks(150_000)
    assert [asked for _, asked in server.asked] == [None, f"bytes={first}-", f"bytes={first}-", f"bytes={second}-"]


@pytest.mark.parametrize("lacks", ["ranges", "tags"])
def test_a_server_that_cannot_resume_begins_anew(server: Any, tmp_path: Path, lacks: str) -> None:
    setattr(server, lacks, False)
    server.files["a.bin"] = BODY
    server.breaks["a.bin"] = [100_000]
    get(Remote("a.bin", "a.bin", (server.url("a.bin"),), hash=sha(BODY)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_killed_download_is_resumed_unless_the_file_has_changed(server: Any, tmp_path: Path) -> None:
    server.files["a.bin"] = BODY
    server.breaks["a.bin"] = [100_000] + [0] * 20
    remote = Remote("a.bin", "a.bin", (server.url("a.bin"),))
    with pytest.raises(
        T2IError, match=r"a\.bin: the connection breaks off\): what has arrived is kept: try again, or put a\.bin into"
    ):
        get(remote, tmp_path)
    server.breaks.clear()
    server.asked.clear()
    server.files["a.bin"] = BODY[::-1]
    get(remote, tmp_path)
    assert server.asked == [("a.bin", f"bytes={whole_blocks(100_000)}-")]
    assert (tmp_path / "a.bin").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("longer", [b"", b"more"])
def test_a_part_that_is_whole_is_not_fetched_again(server: Any, tmp_path: Path, longer: bytes) -> None:
    server.files["a.bin"] = BODY
    (tmp_path / ".a.bin.part").write_bytes(BODY + longer)  # of a run that was killed before it renamed it
    (tmp_path / ".a.bin.part.tag").write_text(f'"{hashlib.md5(BODY).hexdigest()}"')
    get(Remote("a.bin", "a.bin", (server.url("a.bin"),), hash=sha(BODY)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    asked = [("a.bin", f"bytes={len(BODY + longer)}-")]
    assert server.asked == (asked if not longer else [*asked, ("a.bin", None)])


def test_a_connection_that_breaks_in_its_encryption_is_opened_again(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a.bin"] = BODY
    real, calls = http.client.HTTPResponse.read, itertools.count()

    def read(answer: Any, *size: int) -> bytes:
        if next(calls) % 5 == 0:
            raise ssl.SSLError("record layer failure")
        return real(answer, *size)

    monkeypatch.setattr(http.client.HTTPResponse, "read", read)
    get(Remote("a.bin", "a.bin", (server.url("a.bin"),), hash=sha(BODY)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert len(server.asked) > 2


def test_a_mirror_helps(server: Any, tmp_path: Path) -> None:
    server.files |= {"wrong.bin": b"other", "right.bin": BODY}
    urls = tuple(server.url(name) for name in ("missing.bin", "wrong.bin", "right.bin"))
    get(Remote("a.bin", "a.bin", urls, hash=sha(BODY)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert json.loads((tmp_path / "downloads.json").read_text())["a.bin"]["url"] == urls[2]
    assert [name for name, _ in server.asked] == ["missing.bin", "wrong.bin", "right.bin"]


def test_what_cannot_be_had_says_where_to_put_it(server: Any, tmp_path: Path) -> None:
    place = rf"put a\.bin into {tmp_path} \(it is found at https://example\.org\)"
    page = "https://example.org"
    with pytest.raises(T2IError, match=rf"missing: the server answers 404 Not Found\): try again, or {place}"):
        get(Remote("a.bin", "a.bin", (server.url("missing"),), page), tmp_path)
    with pytest.raises(T2IError, match=rf"cannot be downloaded by a program: {place}"):
        get(Remote("a.bin", "a.bin", (), page), tmp_path)
    server.files["a.bin"] = BODY
    with pytest.raises(T2IError, match=rf"expected sha256:00 but got {sha(BODY)[7:]}\): try again, or {place}"):
        get(Remote("a.bin", "a.bin", (server.url("a.bin"),), page, "sha256:00"), tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert not list(tmp_path.glob(".*.part"))
    server.shutdown()
    server.server_close()
    with pytest.raises(T2IError, match=rf"is not reached \(.*\): try again, or {place}"):
        get(Remote("a.bin", "a.bin", (server.url("a.bin"),), page), tmp_path)


def test_a_busy_server_is_asked_again(server: Any, tmp_path: Path) -> None:
    server.files["a.bin"] = BODY
    server.status["a.bin"] = [503, 429]
    get(Remote("a.bin", "a.bin", (server.url("a.bin"),)), tmp_path)
    assert len(server.asked) == 3
    server.status["b.bin"] = [500] * 50
    with pytest.raises(T2IError, match="answers 500"):
        get(Remote("b.bin", "b.bin", (server.url("b.bin"),)), tmp_path)


def test_without_a_published_hash_the_first_download_counts(server: Any, tmp_path: Path) -> None:
    server.files["a.bin"] = BODY
    remote = Remote("a.bin", "a.bin", (server.url("a.bin"),))
    get(remote, tmp_path)
    (tmp_path / "a.bin").unlink()
    server.files["a.bin"] = BODY[1:]
    with pytest.raises(T2IError, match=r"but got .*, the one that downloads\.json holds of the first download\): try"):
        get(remote, tmp_path)


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_archives_are_unpacked_into_what_is_there(server: Any, tmp_path: Path, kind: str) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/own.txt").write_text("mine")
    server.files[f"a.{kind}"] = packed(kind, {"notes/a.txt": b"a", "notes/b.txt": b"b", "c.txt": b"c"})
    get(Remote(f"a.{kind}", "notes/a.txt", (server.url(f"a.{kind}"),)), tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.txt")}
    assert found == {"notes/own.txt", "notes/a.txt", "notes/b.txt", "c.txt"}
    assert not (tmp_path / f"a.{kind}").exists()
    assert not list(tmp_path.glob(".*unfinished"))


def test_archives_with_nothing_good_in_them(server: Any, tmp_path: Path) -> None:
    cases = {
        "out.tgz": (
            packed("tgz", {"../out.txt": b"x", "in.txt": b"y"}),
            r"cannot be unpacked \('\.\./out\.txt' would",
        ),
        "else.zip": (packed("zip", {"else.txt": b"x"}), r"else\.zip holds no in\.txt, expected the archive at"),
        "page.tgz": (b"<html>", r"page\.tgz cannot be unpacked"),
        "half.tgz": (packed("tgz", {"in.txt": BODY})[:900], r"half\.tgz cannot be unpacked"),
    }
    for name, (content, match) in cases.items():
        server.files[name] = content
        with pytest.raises(T2IError, match=match):
            get(Remote(name, "in.txt", (server.url(name),)), tmp_path / "folder")
        (tmp_path / "folder" / name).unlink()
    assert not list(tmp_path.rglob("out.txt"))
    assert not list(tmp_path.rglob("in.txt"))


@pytest.mark.parametrize(
    ("name", "kind", "link", "match"),
    [
        ("a/b.txt", tarfile.REGTYPE, "", None),
        ("a/link.txt", tarfile.SYMTYPE, "../in.txt", r"'\.\./in\.txt' would lead out"),
        ("link.txt", tarfile.SYMTYPE, "in.txt", None),
        ("link.txt", tarfile.SYMTYPE, "/etc/passwd", r"'/etc/passwd' would lead out"),
        ("../out.txt", tarfile.REGTYPE, "", r"'\.\./out\.txt' would lead out"),
        ("/out.txt", tarfile.REGTYPE, "", r"'/out\.txt' would lead out"),
        ("pipe", tarfile.FIFOTYPE, "", r"'pipe' is a device"),
    ],
)
def test_archives_on_pythons_without_filters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: bytes, link: str, match: str | None
) -> None:
    real = tarfile.TarFile.extractall
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(tarfile.TarFile, "extractall", lambda archive, path: real(archive, path))  # no filter: 3.11.3
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        for member, of in (("in.txt", tarfile.REGTYPE), (name, kind)):
            info = tarfile.TarInfo(member)
            info.type, info.linkname = of, link if member == name else ""
            archive.addfile(info)
    if match is None:
        get(Remote("a.tgz", "in.txt"), tmp_path)
        assert (tmp_path / "in.txt").is_file()
        assert (tmp_path / name).is_file()
        return
    with pytest.raises(T2IError, match=rf"a\.tgz cannot be unpacked \({match}"):
        get(Remote("a.tgz", "in.txt"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tgz", ".download.lock"}


def test_a_file_put_there_by_hand(tmp_path: Path) -> None:
    content = packed("tgz", {"cvpr/text_c10/a.txt": b"a bird", "cvpr/testclasses.txt": b"x"})
    (tmp_path / "cvpr2016_cub.tar.gz").write_bytes(content)
    get(birds.TEXTS, tmp_path)  # no address, and nothing to ask
    assert (tmp_path / "text_c10/a.txt").read_text() == "a bird"
    assert (tmp_path / "testclasses.txt").exists()
    assert (tmp_path / "cvpr2016_cub.tar.gz").exists()
    (tmp_path / "CUB_200_2011.tgz").write_bytes(b"half")
    with pytest.raises(T2IError, match=r"CUB_200_2011\.tgz has the md5 .*: move it elsewhere, and the same"):
        get(birds.PICTURES, tmp_path)


def archive_of(folder: Path, names: list[str], kind: str) -> bytes:
    files = [path for name in names for path in (folder / name).rglob("*") if path.is_file()]
    return packed(kind, {path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def test_birds_from_nothing(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_cub(tmp_path / "whole", 4)
    server.files["CUB_200_2011.tgz"] = content = archive_of(whole, ["CUB_200_2011"], "tgz")
    digest = f"md5:{hashlib.md5(content).hexdigest()}"
    url = (server.url("CUB_200_2011.tgz"),)
    monkeypatch.setattr(birds, "PICTURES", Remote("CUB_200_2011.tgz", "CUB_200_2011", url, hash=digest))
    root = tmp_path / "birds"
    with pytest.raises(T2IError, match=r"cvpr2016_cub\.tar\.gz cannot be downloaded by a program: put .*https://drive"):
        CUB200(str(root), download=True).records()
    lists = {name: (whole / name).read_bytes() for name in ("trainvalclasses.txt", "testclasses.txt")}
    texts = {p.relative_to(whole).as_posix(): p.read_bytes() for p in (whole / "text_c10").rglob("*.txt")}
    inner = {f"cvpr2016_cub/{name}": content for name, content in {**lists, **texts}.items()}
    (root / "cvpr2016_cub.tar.gz").write_bytes(packed("tgz", inner))
    assert len(CUB200(str(root), download=True).records()) == 4
    assert len(server.asked) == 1
    assert CUB200("x", download=True).options() == CUB200("x").options()  # nothing that makes another store


def test_coco_from_nothing(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_coco(tmp_path / "whole", 6)
    monkeypatch.setattr(coco, "_HOST", server.url("").rstrip("/"))
    for place, folder in (("annotations/annotations_trainval2014", "annotations"), ("zips/train2014", "train2014")):
        server.files[f"{place}.zip"] = archive_of(whole, [folder], "zip")
    root = tmp_path / "coco"
    with pytest.raises(T2IError, match=r"val2014\.zip cannot be downloaded .*404 .*https://cocodataset\.org"):
        COCOCaptions(str(root), download=True).records()
    server.files["zips/val2014.zip"] = archive_of(whole, ["val2014"], "zip")
    assert len(COCOCaptions(str(root), download=True).records()) == 6
    assert [name for name, _ in server.asked].count("zips/train2014.zip") == 1


def test_the_addresses_are_those_of_the_publishers() -> None:
    hashes = {remote.name: remote.hash for remote in flowers.REMOTES}
    assert hashes == {
        "102flowers.tgz": "md5:52808999861908f626f3c1f4e79d11fa",
        "imagelabels.mat": "md5:e0620be6f572b9609742df49c70aed4d",
        "setid.mat": "md5:a5357ecc9cb78c4bef273ce3793fc85c",
        "cvpr2016_flowers.tar.gz": None,
    }
    for remote in (*flowers.REMOTES, birds.PICTURES, birds.TEXTS):
        assert all(url.startswith("https://") for url in remote.urls)
        assert remote.page.startswith("https://")
    assert Flowers102(download=False).download is False
