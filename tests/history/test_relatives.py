"""From a new sample to its parent, and back."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from factory_lib import C, DatasetQuery, trace
from factory_lib.augmentation import HorizontalFlip, StripExif
from factory_lib.curation.new_samples import make_samples, superset
from factory_lib.warehouse.client import warehouse
from tests.command_line import run
from tests.samples import write_tar

pytestmark = pytest.mark.usefixtures("family")


@pytest.fixture
def family(engine: None, tmp_path: Path) -> None:
    """`pool` -> `large` -> `mirrored` -> `plain`; `pool` and `mirrored` are `both`."""
    into = BytesIO()
    Image.new("RGB", (8, 6), "red").save(into, "PNG")
    members = [(f"k{i}.{kind}", data) for i in range(3) for kind, data in (("png", into.getvalue()), ("txt", f"c{i}"))]
    write_tar(tmp_path / "source" / "a.tar", members)
    DatasetQuery.from_source(str(tmp_path / "source")).save("pool")
    DatasetQuery("pool").filter(C.key != "k2").save("large")
    made = str(tmp_path / "made")
    make_samples(DatasetQuery("large"), HorizontalFlip(), into=made).save("mirrored")
    make_samples(DatasetQuery("mirrored"), StripExif(), into=made, suffix="-p").save("plain")
    superset(DatasetQuery("pool"), DatasetQuery("mirrored")).save("both")


def test_a_new_sample_leads_to_its_parent_and_back(tmp_path: Path) -> None:
    key = "k1-horizontal_flip"
    found = trace("mirrored", key)
    assert [(step.version, step.is_there) for step in found.steps] == [("mirrored.v1", True)]
    assert found.parent is not None
    assert found.parent.key == "k1"
    assert [(step.version, step.is_there) for step in found.parent.steps] == [("pool.v1", True), ("large.v1", True)]
    assert found.parent.pointers["image"]["uri"] == f"{tmp_path}/source/a.tar"
    assert found.pointers["image"]["uri"].startswith(f"{tmp_path}/made/horizontal_flip-")
    (child,) = found.parent.children
    assert (child.key, child.sample_id, child.operation) == (key, found.sample_id, "HorizontalFlip()")
    assert (child.versions, child.pointers) == (("both.v1", "mirrored.v1"), dict(found.pointers))
    assert [one.key for one in found.children] == [f"{key}-p"]
    assert trace("pool", "k2").children == []
    assert trace("pool", "k2").parent is None


def test_a_sample_of_a_sample_leads_to_the_first(tmp_path: Path) -> None:
    found = trace("plain", "k0-horizontal_flip-p")
    assert found.parent is not None
    assert found.parent.parent is not None
    assert [one.key for one in (found, found.parent, found.parent.parent)] == [
        "k0-horizontal_flip-p", "k0-horizontal_flip", "k0"
    ]  # fmt: skip
    of_both = trace("both", "k0-horizontal_flip")
    assert [step.version for step in of_both.steps] == ["mirrored.v1", "both.v1"]
    assert of_both.parent is not None
    assert of_both.parent.key == "k0"


def test_the_command_shows_both_ways(tmp_path: Path) -> None:
    shown = run("trace", "mirrored", "k1-horizontal_flip").stdout
    assert shown.index("key k1\n") < shown.index("made of ") < shown.index("operation = HorizontalFlip()")
    assert f"{tmp_path}/source/a.tar" in shown.replace("\n", "")
    assert "k1-horizontal_flip  HorizontalFlip()  in both.v1, mirrored.v1" in run("trace", "pool", "k1").stdout
    assert "made of sample" in trace("mirrored", "k1-horizontal_flip")._repr_html_()
    assert "of it: k1-horizontal_flip" in trace("pool", "k1")._repr_html_()


def test_a_parent_whose_versions_are_gone_is_said_by_its_id() -> None:
    parent = trace("pool", "k1").sample_id
    for dataset in ("large", "both"):
        warehouse().execute(f"DROP DATABASE {dataset} SYNC")
    found = trace("mirrored", "k1-horizontal_flip")
    assert found.parent is None
    assert {value.column: value.value for value in found.steps[-1].values}["parent_sample_id"] == parent
