"""Values of a column by weight: shares, epochs and resuming are those of a mix, whatever numbers of samples there are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from factory_lib import DatasetQuery, mix_by, open_source, sql_text
from factory_lib.errors import LoaderError, SettingsError
from tests.layouts import jpeg
from tests.samples import write_tar

SIZES = {"photos": 60, "web": 30, "birds": 10}


@pytest.fixture
def pool(engine: None, tmp_path: Path) -> DatasetQuery:
    """A version of three sources; the number of a sample is its key."""
    number = 0
    for name, size in SIZES.items():
        (tmp_path / name).mkdir()
        samples: list[tuple[str, bytes | str]] = []
        for _ in range(size):
            samples += [(f"{number}.jpg", jpeg(number % 7)), (f"{number}.txt", name)]
            number += 1
        write_tar(tmp_path / name / "0.tar", samples)
    weights = {"photos": 1, "web": 2, "birds": 1}
    tables = [f'[{name}]\nuri = "{name}"\nweight = {weight}\n' for name, weight in weights.items()]
    (tmp_path / "sources.toml").write_text("".join(tables))
    return DatasetQuery(DatasetQuery.from_source(open_source(str(tmp_path / "sources.toml"))).save("pool"))


LOADED: dict[str, Any] = {"columns": ["source", "key"], "members": [], "global_batch_size": 20}


def keys(batches: Any) -> list[list[tuple[str, str]]]:
    return [list(zip(batch["source"], batch["key"], strict=True)) for batch in batches]


def test_each_source_has_its_share_and_all_its_samples_before_any_comes_again(pool: DatasetQuery) -> None:
    found = keys(mix_by(pool, {"photos": 1, "web": 2, "birds": 1}, **LOADED))
    rows = [row for batch in found for row in batch]
    assert len(rows) == sum(SIZES.values())  # an epoch is as long as the sources together
    for number in range(1, len(found) + 1):
        counts = Counter(source for batch in found[:number] for source, _ in batch)
        assert all(abs(counts[name] - 20 * number * part) <= 1 for name, part in (("photos", 0.25), ("web", 0.5)))
    for name, size in SIZES.items():
        own = [key for source, key in rows if source == name]
        for start in range(0, len(own) - size, size):
            assert len(set(own[start : start + size])) == size
    birds = [key for source, key in rows if source == "birds"]
    assert len(birds) == 25
    assert birds[:10] != birds[10:20]
    assert sorted(birds[:10]) == sorted(birds[10:20])


def test_the_order_is_a_function_of_the_seed_and_a_state_is_taken_up(pool: DatasetQuery) -> None:
    weights = {"photos": 3, "web": 1, "birds": 0}
    whole = keys(mix_by(pool, weights, seed=5, **LOADED))
    assert {source for batch in whole for source, _ in batch} == {"photos", "web"}
    assert keys(mix_by(pool, weights, seed=5, **LOADED)) == whole
    assert keys(mix_by(pool, weights, seed=6, **LOADED)) != whole
    first = mix_by(pool, weights, seed=5, **LOADED)
    iterator = iter(first)
    before = keys([next(iterator), next(iterator)])
    again = mix_by(pool, weights, seed=5, **LOADED)
    again.load_state_dict(first.state_dict())
    assert before + keys(again) == whole
    other = mix_by(pool, {**weights, "web": 2}, seed=5, **LOADED)
    with pytest.raises(LoaderError, match="weights"):
        other.load_state_dict(first.state_dict())


def test_weights_that_are_declared(pool: DatasetQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sources.toml"
    monkeypatch.setenv("FACTORY_SOURCE", str(file))
    declared = keys(mix_by(pool, seed=1, **LOADED))
    assert declared == keys(mix_by(pool, {"photos": 1, "web": 2, "birds": 1}, seed=1, **LOADED))
    # a source whose samples are all gone asks for nothing
    some = mix_by(pool.filter("source != 'birds'"), **LOADED)
    assert {source for batch in keys(some) for source, _ in batch} == {"photos", "web"}
    file.write_text(file.read_text().replace("weight = 2\n", ""))
    with pytest.raises(LoaderError, match=r"declares no weight of 'web'.*weight = 1 below \[web\]"):
        mix_by(pool, **LOADED)
    monkeypatch.setenv("FACTORY_SOURCE", str(tmp_path / "photos"))
    with pytest.raises(SettingsError, match="no file that declares sources"):
        mix_by(pool, **LOADED)


def test_what_cannot_be_weighed_is_said(pool: DatasetQuery) -> None:
    with pytest.raises(LoaderError, match="'phots'.*Did you mean 'photos'"):
        mix_by(pool, {"phots": 1, "web": 1, "birds": 1})
    with pytest.raises(LoaderError, match="'birds' has 10 samples and no weight"):
        mix_by(pool, {"photos": 1, "web": 1})
    with pytest.raises(LoaderError, match="no column 'sorce'.*Did you mean 'source'"):
        mix_by(pool, {"photos": 1}, column="sorce")
    with pytest.raises(LoaderError, match="10 samples have no 'source'"):
        mix_by(pool.mutate(source=sql_text("nullIf(source, 'birds')")), {"photos": 1, "web": 1})
    with pytest.raises(LoaderError, match="no samples to be weighed"):
        mix_by(pool.filter("false"), {"photos": 1, "web": 1}, **LOADED)
    with pytest.raises(LoaderError, match="one positive weight each"):
        mix_by(pool, {"photos": float("inf"), "web": 1, "birds": 1}, **LOADED)
    with pytest.raises(LoaderError, match="cannot be mixed"):
        mix_by(pool, {"photos": -1, "web": 1, "birds": 1}, **LOADED)
    with pytest.raises(LoaderError, match="cannot be mixed"):
        mix_by(pool, dict.fromkeys(SIZES, 0), **LOADED)
