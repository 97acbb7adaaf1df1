"""Where sources are: patterns and lists of files, web servers, Hugging Face's hub."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from fsspec.config import conf

from factory_lib import DatasetQuery, open_source
from factory_lib.errors import FileMissing, StoreError
from factory_lib.sources.listing import expanded
from factory_lib.storage.store import store
from tests.hub import Hub
from tests.layouts import jpeg
from tests.samples import rows, write_tar
from tests.web import Ranged, serve_http


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a/{008..011}.tar", ["a/008.tar", "a/009.tar", "a/010.tar", "a/011.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{0..10..5}x", ["0x", "5x", "10x"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{train,val}/{a..c}", ["train/a", "train/b", "train/c", "val/a", "val/b", "val/c"]),
        ("a{b}c", ["a{b}c"]),
        ("plain", ["plain"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert list(expanded(pattern)) == names


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pool/data/000.tar` to `002.tar` with two samples each."""
    folder = tmp_path_factory.mktemp("hub")
    for number in range(3):
        members = [(f"{number}{n}.{e}", f"{e} {number}{n}") for n in range(2) for e in ("jpg", "txt")]
        write_tar(folder / "pool" / "data" / f"{number:03d}.tar", members)
    return folder


def samples(uri: str) -> dict[str, str]:
    """Caption of each key; the bytes that its pointer leads to are looked at."""
    found = rows(open_source(uri))
    for row in found:
        image = row["image"]
        assert store().read(image["uri"], image["offset"], image["size"]) == f"jpg {row['key']}".encode()
    return {row["key"]: row["caption"] for row in found}


ALL = {f"{number}{n}": f"txt {number}{n}" for number in range(3) for n in range(2)}
FIRST_TWO = {key: text for key, text in ALL.items() if key[0] in "01"}


def test_several_files_of_a_disk(shards: Path) -> None:
    folder = shards / "pool" / "data"
    assert samples(f"{folder}/{{000..001}}.tar") == FIRST_TWO
    assert samples(f"{folder}/*.tar") == samples(f"{shards}/**/0*.tar") == ALL
    listed = shards / "pool" / "some.txt"
    listed.write_text(f"# of the pool\ndata/000.tar\n\n{folder}/001.tar\n")
    assert samples(str(listed)) == FIRST_TWO
    source = open_source(f"{folder}/{{001..003}}.tar")
    assert [shard.name for shard in source.shards()] == ["001", "002"]
    (gone,) = [group for group in source.account.data() if not group["used"]]
    assert (gone["count"], gone["reason"]) == (1, "does not exist")
    with pytest.raises(FileMissing, match=r"007\.tar does not exist"):
        open_source(f"{folder}/{{007..009}}.tar")


@pytest.mark.usefixtures("engine")
def test_a_pattern_is_what_the_provenance_says(shards: Path) -> None:
    pattern = f"{shards}/pool/data/{{000..001}}.tar"
    version = DatasetQuery.from_source(pattern).save("pool")
    assert version.provenance is not None
    assert version.provenance.sources[0]["uri"] == pattern
    assert version.rows == 4


def test_web_servers(shards: Path) -> None:
    with serve_http(shards / "pool", Ranged) as url:
        assert samples(f"{url}/data/{{000..001}}.tar") == FIRST_TWO
        (shards / "pool" / "list.txt").write_text(f"data/000.tar\n{url}/data/001.tar\n")
        assert samples(f"{url}/list.txt") == FIRST_TWO
        assert samples(f"{url}/data/") == ALL
        assert samples(f"{url}/data/001.tar") == {"10": "txt 10", "11": "txt 11"}


@pytest.mark.parametrize("name", ["my pics 100%", "a?b#c", "a%20b"])
def test_shards_of_a_web_server_are_called_as_those_of_a_disk(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "a b.jpg").write_bytes(jpeg(0))
    with serve_http(tmp_path, Ranged) as url:
        names = [open_source(uri).shards()[0].name for uri in (str(folder), f"{url}/{quote(folder.name)}")]
    assert names == [name.translate(dict.fromkeys(map(ord, " %?#"), "_"))] * 2


def test_the_hub(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_http(shards, Hub) as url:
        monkeypatch.setitem(conf, "hf", {"endpoint": url, "token": False})
        monkeypatch.setattr("factory_lib.storage.store._clients", {})
        assert samples("hf://datasets/user/pool/data") == ALL
        assert samples("hf://datasets/user/pool/data/{000..001}.tar") == FIRST_TWO
        assert samples("hf://datasets/user/pool@main/data/002.tar") == {"20": "txt 20", "21": "txt 21"}
        with pytest.raises(FileMissing, match="does not exist"):
            open_source("hf://datasets/user/other")
    monkeypatch.setitem(conf, "hf", {"endpoint": "http://127.0.0.1:9", "token": False})
    monkeypatch.setattr("factory_lib.storage.store._clients", {})
    with pytest.raises(StoreError, match="Connection refused"):
        open_source("hf://datasets/user/offline")
