"""Pictures with captions as popular datasets and trainers keep them: whatever names them is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory_lib import open_source
from factory_lib.errors import SourceError
from factory_lib.sources import ShardReport
from factory_lib.sources.account import losses
from factory_lib.sources.footer import row_groups
from tests.fuzzing import parquet
from tests.layouts import jpeg, tar
from tests.samples import rows
from tests.web import Ranged, serve_http

NUMBERS = range(4)
SAID = [f"a picture, number {n}" for n in NUMBERS]


def pictures(root: Path, name: str = "Images/{}.jpg") -> list[str]:
    names = [name.format(n) for n in NUMBERS]
    for n in NUMBERS:
        (root / names[n]).parent.mkdir(parents=True, exist_ok=True)
        (root / names[n]).write_bytes(jpeg(n))
    return names


def flickr8k(root: Path) -> None:
    pictures(root)
    (root / "captions.txt").write_text("image,caption\n" + "".join(f'{n}.jpg,"{SAID[n]}"\n' for n in NUMBERS))
    (root / "readme.txt").write_text("Some words, and more.\n")


def flickr8k_tokens(root: Path) -> None:
    pictures(root)
    (root / "Flickr8k.token.txt").write_text("".join(f"{n}.jpg#0\t{SAID[n]}\n" for n in NUMBERS))


def flickr30k(root: Path) -> None:
    pictures(root)
    lines = [f"{n}.jpg| 0| {SAID[n]}\n" for n in NUMBERS]
    (root / "results.csv").write_text("image_name| comment_number| caption\n" + "".join(lines))


def latents(root: Path) -> None:
    pictures(root)
    for n in NUMBERS:
        (root / f"Images/{n}.caption").write_text(SAID[n])
        np.savez(root / f"Images/{n}.npz", latents=np.zeros((4, 2, 2), np.float32), size=np.array([96, 96]))


def arrays(root: Path) -> None:
    pictures(root)
    for n in NUMBERS:
        (root / f"Images/{n}.txt").write_text(SAID[n])
        np.save(root / f"Images/{n}.npy", np.zeros(8, np.float32))


def json_of_captions(root: Path) -> None:
    (root / "captions.json").write_text(json.dumps(dict(zip(pictures(root), SAID, strict=True))))


def json_of_objects(root: Path) -> None:
    names = pictures(root)
    (root / "meta_cap.json").write_text(json.dumps({names[n][:-4]: {"caption": SAID[n]} for n in NUMBERS}))


def few_of_many(root: Path) -> None:
    """The pictures of the first rows are not there, nor are nearly all others."""
    names = [*(f"Images/{n}.jpg" for n in range(100, 1300)), *pictures(root)]
    captions = [*(["gone"] * 1200), *SAID]
    pq.write_table(pa.table({"path": names, "caption": captions}), root / "all.parquet")


def paths_without_bytes(root: Path) -> None:
    """Hugging Face's column of pictures where their bytes were not embedded."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": name} for name in pictures(root)], kind)
    pq.write_table(pa.table({"image": images, "text": SAID}), root / "train.parquet")


@pytest.mark.parametrize(
    "write",
    [flickr8k, flickr8k_tokens, flickr30k, latents, arrays, json_of_captions, json_of_objects, few_of_many,
     paths_without_bytes],
)  # fmt: skip
def test_each_picture_has_its_caption(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    source = open_source(str(tmp_path))
    found = [(row["image"]["size"], row["caption"]) for row in rows(source)]
    assert found == [(len(jpeg(n)), SAID[n]) for n in NUMBERS]
    assert not losses(source.account.data())


def test_all_captions_of_a_picture_are_kept_whatever_their_column_is_called(tmp_path: Path) -> None:
    pictures(tmp_path)
    lines = [f"{n}.jpg;{said}\n" for n in NUMBERS for said in (SAID[n], "another")]
    (tmp_path / "results.csv").write_text("image;comment\n" + "".join(lines))
    found = rows(open_source(str(tmp_path), caption="comment"))
    assert [row["captions"] for row in found] == [[said, "another"] for said in SAID]
    assert [row["caption"] for row in found] == SAID


def test_metadata_from_elsewhere_may_name_pictures_by_their_files(tmp_path: Path) -> None:
    names = pictures(tmp_path / "in", "{}.jpg")
    (tmp_path / "m.csv").write_text(
        "file_name,caption\n" + "".join(f'{n},"{s}"\n' for n, s in zip(names, SAID, strict=True))
    )
    source = open_source(str(tmp_path / "in"), metadata=str(tmp_path / "m.csv"))
    assert [row["caption"] for row in rows(source)] == SAID
    assert "m.csv" in [name for entry in source.account.data() if entry["used"] for name in entry["examples"]]


def test_names_on_a_web_server(tmp_path: Path) -> None:
    """Addresses are encoded, links may lead nowhere, and a presigned address has a query behind the name."""
    names = pictures(tmp_path, "my train/photo ü {}.jpg")
    lines = [f'{name},"{said}"\n' for name, said in zip(names, SAID, strict=True)]
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + "".join(lines))
    (tmp_path / "dead.jpg").symlink_to("nowhere.jpg")
    tar(tmp_path / "tars" / "0.tar", [("a.jpg", jpeg(0)), ("a.txt", SAID[0].encode())])
    with serve_http(tmp_path, Ranged) as server:
        signed = open_source(f"{server}/tars/0.tar?X-Amz-Signature=secret")
        assert [row["caption"] for row in rows(signed)] == SAID[:1]
        assert [shard.name for shard in signed.shards()] == ["0"]
        assert "secret" not in str(signed.account.data())
        (tmp_path / "tars" / "0.tar").unlink()
        source = open_source(server)
        assert [row["caption"] for row in rows(source)] == SAID
        assert [row["key"] for row in rows(source)] == [name.removesuffix(".jpg") for name in names]
        assert [(e["examples"], e["reason"]) for e in source.account.data() if not e["used"]] == [
            (["dead.jpg"], "a broken link")
        ]


def test_captions_with_commas_before_a_tab(tmp_path: Path) -> None:
    """As Conceptual Captions has them: without a header."""
    (tmp_path / "cc3m.tsv").write_text("".join(f"{SAID[n]}\thttp://x/{n}\n" for n in NUMBERS))
    assert [(row["caption"], row["url"]) for row in rows(open_source(str(tmp_path)))] == [
        (SAID[n], f"http://x/{n}") for n in NUMBERS
    ]


def test_downloads_that_failed_do_not_hide_those_that_did_not(tmp_path: Path) -> None:
    """Which column holds pictures is told by its first value, wherever it is."""
    data = [None] * 30 + [jpeg(n) for n in NUMBERS]
    table = pa.table({"key": [f"{n}" for n in range(34)], "jpg": pa.array(data, pa.binary())})
    pq.write_table(table, tmp_path / "0.parquet")
    found = rows(open_source(str(tmp_path / "0.parquet"), unpack_to=str(tmp_path / "unpacked")))
    assert [row["image"]["size"] for row in found[30:]] == [len(jpeg(n)) for n in NUMBERS]


def test_the_account_says_what_could_be_the_image_and_the_caption(tmp_path: Path) -> None:
    members = [(f"{n}.{kind}", data) for n in NUMBERS for kind, data in (("in.jpg", jpeg(n)), ("blip.txt", b"a text"))]
    tar(tmp_path / "0.tar", members)
    said = [(e["what"], e["examples"], e["reason"]) for e in open_source(str(tmp_path)).account.data() if e["reason"]]
    assert ("pointer", ["in_jpg"], "--image makes one the image") in said
    assert ("string", ["blip_txt"], "--caption makes one the caption") in said
    mapped = open_source(str(tmp_path), image="in.jpg", caption="blip.txt")
    assert not [entry for entry in mapped.account.data() if entry["reason"]]


def test_few_names_with_dots_are_no_columns(tmp_path: Path) -> None:
    members = [(f"photo.{n}.jpg", jpeg(n % 4)) for n in range(20)]
    tar(tmp_path / "0.tar", members)
    with pytest.raises(SourceError, match=r"have 20 extensions \(.0.jpg.*key_pattern='last-dot'"):
        open_source(str(tmp_path))
    assert len(rows(open_source(str(tmp_path), key_pattern="last-dot"))) == 20
    tar(tmp_path / "0.tar", [(f"{n:03d}.view_{v}.jpg", jpeg(v)) for n in range(3) for v in range(20)])
    assert len(rows(open_source(str(tmp_path)))) == 3


def test_the_footer_of_parquet_says_what_arrow_says(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    about = pq.ParquetFile(tmp_path / "a.parquet").metadata
    for number, group in enumerate(row_groups(about)):
        assert group.rows == about.row_group(number).num_rows
        for leaf, ours in enumerate(group.columns):
            theirs: Any = about.row_group(number).column(leaf)
            assert ours.name == theirs.path_in_schema.partition(".")[0]
            assert (ours.values, ours.uncompressed) == (theirs.num_values, theirs.total_uncompressed_size)
            assert ours.nulls == (theirs.statistics.null_count if theirs.is_stats_set else None)
            assert ours.dictionary == (
                theirs.data_page_offset - theirs.dictionary_page_offset if theirs.has_dictionary_page else None
            )


def test_a_footer_that_would_end_the_process_is_told(tmp_path: Path) -> None:
    """Statistics of a type that has none: Arrow's own error for that passes through code that catches none."""
    table = pa.table({"vector": [[1.5], [2.5]], "b": ["x", "y"]})
    pq.write_table(table, tmp_path / "bad.parquet")
    pq.write_table(table, tmp_path / "good.parquet")
    data = (tmp_path / "bad.parquet").read_bytes()
    assert data.count(b"\x1c\x15\x0a\x19") == 1  # the description of a column of doubles, before its encodings
    (tmp_path / "bad.parquet").write_bytes(data.replace(b"\x1c\x15\x0a\x19", b"\x1c\x15\x06\x19"))
    source = open_source(str(tmp_path))
    reports = {shard.name: ShardReport(shard.name) for shard in source.shards()}
    found = {shard.name: list(source.read(shard, reports[shard.name])) for shard in source.shards()}
    assert [row["b"] for batch in found["good"] for row in batch.to_pylist()] == ["x", "y"]
    read = [row["vector"] for batch in found["bad"] for row in batch.to_pylist()]
    assert read == [[1.5], [2.5]] or reports["bad"].counts["unreadable_tables"] == 1
