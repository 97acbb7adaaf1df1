"""What tests of projects get: a data folder of their own, also beside another one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib import DatasetQuery, datasets
from factory_lib.errors import NotFound
from factory_lib.settings import settings
from factory_lib.testing import engine_folder
from factory_lib.warehouse.embedded import engine_status


def test_two_data_folders_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings().home
    monkeypatch.setenv("FACTORY_SOURCE", "s3://not/for/tests")
    with engine_folder(tmp_path / "one") as one:
        assert settings().source is None
        query = DatasetQuery(DatasetQuery.from_arrow(pa.table({"key": ["a"]})).save("rows"))
        with engine_folder(tmp_path / "two") as two:
            with pytest.raises(NotFound):
                DatasetQuery("rows").count()
            DatasetQuery.from_arrow(pa.table({"key": ["b", "c"]})).save("rows")
            assert DatasetQuery("rows").count() == 2
        assert engine_status(two) is None
        assert query.count() == DatasetQuery("rows").count() == 1
        assert datasets()["dataset"].to_pylist() == ["rows"]
    assert engine_status(one) is None
    assert settings().home == before
    assert settings().source == "s3://not/for/tests"
