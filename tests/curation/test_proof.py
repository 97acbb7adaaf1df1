"""A model that cannot judge has no say: CLIP against shuffled captions, heads by their input and their spread."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from factory_lib import C, DatasetQuery
from factory_lib.cli import factory
from factory_lib.curation.alignment import AlignmentFilter, clip_score
from factory_lib.curation.heads import HeadFilter
from factory_lib.curation.proof import caption_auc, judge_clip, judge_head
from factory_lib.curation.rules import keep


def pool(count: int, noise: float) -> DatasetQuery:
    """Vectors of pictures that are those of their captions and noise."""
    random = np.random.default_rng(count)
    captions = random.normal(size=(count, 16)).astype(np.float32)
    pictures = captions + noise * random.normal(size=captions.shape).astype(np.float32)
    kind = pa.list_(pa.float32())
    table = pa.table(
        {
            "key": [str(number) for number in range(count)],
            "caption": [f"caption {number}" for number in range(count)],
            "clip": pa.array(pictures.tolist(), kind),
            "clip_text": pa.array(captions.tolist(), kind),
            "score": random.uniform(size=count),
            "flat": np.full(count, 0.5),
        }
    )
    DatasetQuery.from_arrow(table).save("pool")
    return DatasetQuery("pool")


def test_the_auc_is_that_of_comparing_every_pair_by_hand() -> None:
    random = np.random.default_rng(3)
    pictures, captions = random.normal(size=(2, 40, 8)).astype(np.float32)
    labels = np.arange(40)
    labels[7] = labels[3]
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (pictures, captions)]
    scores = unit[0] @ unit[1].T
    wins = [scores[i, i] > scores[i, j] for i in range(40) for j in range(40) if labels[i] != labels[j]]
    assert caption_auc(pictures, captions, labels)[0] == pytest.approx(np.mean(wins))


def test_the_interval_holds_the_spread_of_many_pools() -> None:
    found = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        captions = random.normal(size=(80, 8)).astype(np.float32)
        pictures = captions + 3 * random.normal(size=captions.shape).astype(np.float32)
        found.append(caption_auc(pictures, captions, np.arange(80)))
    aucs, errors = np.array(found).T
    assert aucs.std() == pytest.approx(errors.mean(), rel=0.4)


def test_a_clip_that_knows_its_captions_filters_and_one_that_does_not_keeps_everything(engine: None) -> None:
    able = pool(300, 0.3).mutate(clip_score=clip_score())
    verdict = judge_clip(able)
    assert verdict.may_judge
    assert verdict.low > 0.9
    assert AlignmentFilter(min_score=0.99).judged(able).rules
    blind = pool(300, 1000).mutate(clip_score=clip_score())
    verdict = judge_clip(blind)
    assert not verdict.may_judge
    assert verdict.low < 0.5 < verdict.high
    assert "FACTORY_CLIP" in verdict.hint
    kept = keep(blind, AlignmentFilter(min_score=0.99)).samples
    assert kept.count() == 300


def test_a_pool_too_small_to_tell_is_no_proof(engine: None) -> None:
    assert not judge_clip(pool(1, 0.1)).may_judge
    same = pool(20, 0.1).mutate(caption="one caption")
    assert not judge_clip(same).may_judge


def test_a_head_needs_its_own_vectors_and_scores_that_spread(engine: None) -> None:
    samples = pool(50, 0.1)
    assert judge_head(samples, "score", vectors="clip", width=16).may_judge
    assert "takes vectors of 768" in judge_head(samples, "score", vectors="clip", width=768).found
    assert "does not spread" in judge_head(samples, "flat").found
    assert "made for vectors of l14" in judge_head(samples, "score", made_for="l14", made_by="b32").found


def scored(**columns: list[float | None]) -> DatasetQuery:
    rows = len(next(iter(columns.values())))
    table = pa.table(
        {"key": [str(n) for n in range(rows)], **{n: pa.array(v, pa.float64()) for n, v in columns.items()}}
    )
    return DatasetQuery(DatasetQuery.from_arrow(table).save("scored"))


def test_a_head_that_may_judge_removes_what_is_out_of_bounds_and_keeps_what_has_no_score(engine: None) -> None:
    samples = scored(score=[0.1, 0.5, 0.51, 0.9, None, float("nan")])
    kept = keep(samples, HeadFilter("score", most=0.5)).samples
    assert kept.to_arrow()["key"].to_pylist() == ["0", "1", "4", "5"]
    both = keep(samples, HeadFilter("score", least=0.5, most=0.51)).samples
    assert both.to_arrow()["key"].to_pylist() == ["1", "2", "4", "5"]


@pytest.mark.parametrize(
    ("scores", "judges"),
    [
        ([0.9] * 20, False),  # one number for everything
        ([0.9 + n / 1e5 for n in range(20)], False),  # hardly different, and all would go
        ([0.01 + n / 1e5 for n in range(20)], True),  # hardly different, and none would
        ([0.0] * 20, False),
        ([None] * 20, False),
        ([n / 20 for n in range(20)], True),
    ],
)
def test_scores_that_say_nothing_remove_nothing(engine: None, scores: list[float | None], judges: bool) -> None:
    samples = scored(score=scores)
    head = HeadFilter("score", most=0.5)
    assert head.verdict(samples).may_judge == judges
    if not judges:
        assert keep(samples, head).samples.count() == 20


def test_the_stage_of_the_docs_is_one(engine: None) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "curation.md").read_text()
    names: dict[str, object] = {"__name__": "docs"}
    [stage] = [block for block in re.findall("```python\n(.*?)```", text, re.DOTALL) if "BEAUTIFUL = " in block]
    exec(compile(stage, "curation.md", "exec"), names)
    head = names["BEAUTIFUL"]
    assert isinstance(head, HeadFilter)
    samples = pool(50, 0.1).mutate(aesthetic=C.score * 10)
    assert "takes vectors of 768" in head.verdict(samples).found
    assert keep(samples, head).samples.count() == 50
    fits = replace(head, width=16)
    assert keep(samples, fits).samples.count() == samples.filter("aesthetic >= 4.5").count() < 50


def test_a_checkpoint_that_cannot_be_had_is_an_error_at_once() -> None:
    result = CliRunner().invoke(factory, ["demo", "--clip", "/nowhere/clip"])
    assert result.exit_code != 0
    assert "There is no checkpoint '/nowhere/clip'" in f"{result.output}{result.exception}"
