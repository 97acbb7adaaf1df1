"""From files to a version: what a source yields is what the warehouse holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory_lib import C, DatasetQuery, open_source
from tests.s3 import Bucket
from tests.samples import read_all, write_tar

pytestmark = pytest.mark.usefixtures("engine")


def test_a_pool_becomes_a_version(shared_data: Path) -> None:
    source = open_source(str(shared_data / "datacomp_like"))
    version = DatasetQuery.from_source(source).save("pool")
    assert version.rows == 461
    expected, _ = read_all(source)
    columns = ["shard", "key", "image", "caption", "width", "clip_b32_similarity_score", "face_bboxes", "l14_img"]
    found = DatasetQuery(str(version)).order_by("shard", "position").select(*columns).to_arrow()
    for column in columns[:-2]:
        assert found[column].to_pylist() == expected[column].to_pylist()
    assert [[*map(list, boxes)] for boxes in found["face_bboxes"].to_pylist()] == expected["face_bboxes"].to_pylist()
    assert found["l14_img"].to_pylist() == expected["l14_img"].to_pylist()
    counts = version.provenance.sources[0]["counts"]
    assert counts["failed_rows"] == 23


def test_samples_without_vectors_and_images_go_in_too(tmp_path: Path, s3: Bucket) -> None:
    import numpy as np

    write_tar(tmp_path / "t" / "0.tar", [("1.jpg", b"x"), ("2.txt", "no image"), ("3.jpg", b"y")])
    np.savez(tmp_path / "v.npz", key=np.array(["3"]), emb=np.array([[1.0, 2.0]], np.float32))
    uri = s3.put_folder(tmp_path / "t", "tars")
    source = open_source(uri, metadata=str(tmp_path / "v.npz"))
    DatasetQuery.from_source(source).save("small")
    found = DatasetQuery("small").order_by(C.position).select("key", "image", "caption", "emb").to_arrow().to_pylist()
    assert found == [
        {"key": "1", "image": {"uri": f"{uri}/0.tar", "offset": 512, "size": 1}, "caption": None, "emb": []},
        {"key": "2", "image": {"uri": "", "offset": 0, "size": 0}, "caption": "no image", "emb": []},
        {"key": "3", "image": {"uri": f"{uri}/0.tar", "offset": 2_560, "size": 1}, "caption": None, "emb": [1.0, 2.0]},
    ]
