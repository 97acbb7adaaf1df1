"""Steps written in YAML: what they make of samples, what they take, and their schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from factory_assets.defs.curation import BASIC, UNSAFE
from factory_assets.models import not_said
from factory_lib import DatasetQuery
from factory_lib.augmentation import BlurFaces, Recaption, Resize
from factory_lib.curation import Kept, duplicate_groups, exact_duplicates, keep
from factory_lib.orchestration.components.curation_stage import CurationStage, StageAttributes, asset_of
from factory_lib.orchestration.components.steps import run_steps
from factory_lib.orchestration.omissions import omissions
from factory_lib.signals.heads import AESTHETIC_V2_L14, Head
from factory_lib.signals.models.faces import faces
from factory_lib.signals.models.photos import photo_embedding
from factory_lib.signals.models.text_area import text_area
from factory_lib.signals.models.unsafe import open_nsfw
from factory_lib.sources.shards import POINTER

ROOT = Path(__file__).parents[2]


def stage_of(*steps: dict[str, Any], **attributes: Any) -> StageAttributes:
    return StageAttributes.model_validate({"dataset": "made", "of": "given", "steps": list(steps), **attributes})


def made(inputs: dict[str, DatasetQuery], *steps: dict[str, Any]) -> DatasetQuery:
    found = run_steps(inputs["given"], [step.plain for step in stage_of(*steps).steps], inputs)
    return found.samples if isinstance(found, Kept) else found


@pytest.fixture(scope="module")
def given(engine_for_all: None) -> dict[str, DatasetQuery]:
    table = {
        "n": [0, 1, 2, 3, 4],
        "same": ["a", "b", "a", "b", "c"],
        "near": [1, 1, 2, 3, 4],
        "nothing": pa.array([None] * 5, pa.int64()),
        "vector": pa.array([[1.0, 0], [0, 1], [1, 1], [0.1, 1], [-1, 0]], pa.list_(pa.float32())),
        "caption": ["a dog", "a cat", "a dog", "two", ""],
    }
    return {"given": DatasetQuery(DatasetQuery.from_arrow(pa.table(table)).save("given"))}


def numbers(query: DatasetQuery, column: str = "n") -> list[int]:
    return sorted(query.select(column).to_arrow()[column].to_pylist())


@pytest.mark.parametrize(
    ("needs", "done"),
    [(["same"], True), (["vector", "n"], True), (["same", "nothing"], False), (["not_there"], False)],
)
def test_a_step_is_done_where_there_is_what_it_needs(
    given: dict[str, DatasetQuery], needs: list[str], done: bool
) -> None:
    step = {"filter": ["n > 1"], "needs": needs}
    assert numbers(made(given, step)) == ([2, 3, 4] if done else [0, 1, 2, 3, 4])
    step["otherwise"] = [{"filter": ["n < 3"]}, {"columns": {"n": "n + 10"}}]
    assert numbers(made(given, step)) == ([2, 3, 4] if done else [10, 11, 12])


def test_a_step_is_not_done_where_columns_make_it_superfluous(given: dict[str, DatasetQuery]) -> None:
    step = {"filter": ["n > 1"], "unless": ["same"]}
    assert numbers(made(given, step)) == [0, 1, 2, 3, 4]
    assert numbers(made(given, {**step, "unless": ["nothing"]})) == [0, 1, 2, 3, 4]  # it is there, if empty
    assert numbers(made(given, {**step, "unless": ["not_there"], "needs": ["same"]})) == [2, 3, 4]
    assert numbers(made(given, {**step, "otherwise": [{"filter": ["n = 3"]}]})) == [3]
    large = {"keep": [{"where": {"condition": "n > 1", "reason": "small"}}], "unless": ["same"]}
    small = {"keep": [{"where": {"condition": "n < 1", "reason": "large"}}]}
    assert numbers(made(given, {**large, "otherwise": [small]})) == [0]
    assert stage_of(step, by_shard=True).by_shard


@pytest.mark.parametrize("said", [[], ["punsafe"], ["open_nsfw"], ["punsafe", "open_nsfw"]])
def test_the_graph_in_yaml_asks_no_model_what_the_source_says(given: dict[str, DatasetQuery], said: list[str]) -> None:
    """The models and filters are those of the graph in Python."""
    pointer = pa.array([{"uri": "file:///no", "offset": n, "size": 1} for n in range(5)], POINTER)
    scores = {name: pa.array([0.1, 0.2, 0.3, 0.4, 0.9], pa.float32()) for name in said}
    samples = DatasetQuery.from_arrow(pa.table({"image": pointer, **scores}))
    documents = yaml.safe_load_all((ROOT / "tests" / "fixtures" / "default_graph.yaml").read_text())
    stages = {
        one["attributes"]["dataset"]: one["attributes"]["steps"] for one in documents if "steps" in one["attributes"]
    }
    asked = made({"given": samples}, *stages["photo_signals"])
    chosen = (open_nsfw, photo_embedding, text_area, faces)
    assert asked.columns == samples.add_signals(*not_said(chosen, samples.columns)).columns
    scored = samples if said else samples.mutate(open_nsfw=0.5)
    steps = [step.plain for step in stage_of(*stages["basic_filter"]).steps]
    kept = run_steps(scored, steps, {})
    filters = [BASIC] if "punsafe" in said else [BASIC, UNSAFE]
    expected = keep(scored, *filters).judged
    assert isinstance(kept, Kept)
    assert (list(kept.judged.rules), kept.judged.remark) == (list(expected.rules), expected.remark)


def test_what_is_left_out_is_told(given: dict[str, DatasetQuery]) -> None:
    few = {"of": "given", "steps": [{"filter": ["n < 2"], "needs": ["nothing"]}]}
    steps = [
        {"signals": ["phash", "caption_stats"]},
        {"signals": ["caption_stats"]},
        {"apply": "near_duplicates", "needs": ["thumbnail"], "otherwise": [{"filter": ["n > 0"]}]},
        {"columns": {"n": "n + 1"}, "unless": ["same", "near"]},
        {"union": [few]},
        {"select": ["n", "caption", "width"]},
    ]
    with omissions() as told:
        made(given, *steps)
    assert told == [
        "No 'phash': the samples have no column 'image'.",
        "No 'caption_stats' is computed: the samples have it.",
        "The step apply is not done: no sample has a value in 'thumbnail'; filter in its place.",
        "The step columns is not done: the samples have 'same'.",
        "The step filter is not done: no sample has a value in 'nothing'.",
        "No 'width' is selected: the samples have no such column.",
    ]
    with omissions() as told:
        made(given, {"signals": ["caption_stats"]}, {"select": ["n"]})
    assert told == []


def test_datasets_have_steps_of_their_own(given: dict[str, DatasetQuery]) -> None:
    few = {"of": "given", "steps": [{"filter": ["n < 2"]}, {"columns": {"n": "n + 10"}}]}
    assert numbers(made(given, {"union": ["given", few]})) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 10, 11]
    without = {"finding": few["of"], "reason": "there"}
    assert numbers(made(given, {"keep": [{"without": without}]})) == []
    without = {"finding": {"of": "given", "steps": [{"keep": [{"where": {"condition": "n > 2", "reason": "small"}}]}]}}
    assert numbers(made(given, {"keep": [{"without": {**without, "reason": "large"}}]})) == [0, 1, 2]


def test_several_findings_are_a_list(given: dict[str, DatasetQuery]) -> None:
    by_near = {"of": "given", "steps": [{"apply": {"exact_duplicates": {"by": ["near"]}}}]}
    given = {**given, "by_same": exact_duplicates(given["given"], ["same"])}
    step = {"apply": {"duplicate_groups": {"findings": ["by_same", by_near], "keep": ["-n"]}}}
    found = made(given, step).order_by("sample_id").to_arrow()
    near = exact_duplicates(given["given"], ["near"])
    expected = duplicate_groups(given["given"], given["by_same"], near, keep=["-n"])
    assert found.equals(expected.order_by("sample_id").to_arrow())
    kept = DatasetQuery.from_arrow(found).filter("kept").select("sample_id").to_arrow()["sample_id"].to_pylist()
    assert kept == given["given"].filter("n = 3").to_arrow()["sample_id"].to_pylist()
    assert stage_of(step).datasets == ["given", "by_same"]


def test_a_signal_that_the_samples_have_is_not_asked(given: dict[str, DatasetQuery]) -> None:
    brought = {"given": given["given"].mutate(caption_stats=1)}
    assert numbers(made(brought, {"signals": ["caption_stats"]}), "caption_stats") == [1] * 5
    assert "caption_stats" in made(given, {"signals": ["caption_stats", "phash"]}).columns


def test_centroids_their_clusters_and_a_search(given: dict[str, DatasetQuery]) -> None:
    middles = pa.array([[1.0, 0], [0, 1]], pa.list_(pa.float32()))
    given = {**given, "middles": DatasetQuery.from_arrow(pa.table({"cluster": [0, 1], "centroid": middles}))}
    step = {"signals": [{"cluster_of": {"centroids": "middles", "vector": "vector", "metric": "inner_product"}}]}
    found = made(given, step, {"columns": {"c": "vector_cluster.cluster"}}).order_by("n").to_arrow()
    vectors = np.stack(found["vector"].to_numpy(zero_copy_only=False))
    assert found["c"].to_pylist() == np.argmax(vectors @ np.eye(2), axis=1).tolist()
    near = made(given, {"apply": {"search": {"column": "vector", "vector": [0.0, 2.0], "k": 2}}})
    assert numbers(near) == [1, 3]


class Undeclared:
    """A class of a signal without its decorator."""

    def __call__(self, caption: str) -> int:
        return len(caption)


def longer(caption: str) -> str:
    return f"{caption}, again"


def test_operations_are_those_of_python() -> None:
    written = ["strip_exif", {"blur_faces": {"boxes": "faces", "strength": 3}}, {"resize": {"size": 64}}]
    recaption = {"recaption": {"function": f"{__name__}.longer"}}
    step = stage_of({"apply": {"make_samples": {"operations": [*written, recaption], "encoding": {"quality": 80}}}})
    [use] = [one.given for one in (s.plain for s in step.steps)]
    operations = [one.made({}) for one in use.values["operations"]]
    assert operations[1:] == [BlurFaces("faces", 3), Resize(64), operations[3]]
    assert str(operations[3]) == str(Recaption(longer))
    assert use.values["encoding"].quality == 80


def test_the_head_of_a_name() -> None:
    given = {"name": "beauty", "weights": "no.safetensors", "head": "aesthetic_v2_l14", "vectors": "l14"}
    [use] = stage_of({"signals": [{"head_score": given}]}).steps[0].signals or []
    signal = use.made({})
    expected = Head("no.safetensors", AESTHETIC_V2_L14).signal("beauty", "l14")
    assert (signal.name, signal.inputs, vars(signal.target)["architecture"]) == (
        "beauty", expected.inputs, AESTHETIC_V2_L14,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("step", "place", "said"),
    [
        ({"apply": {"make_samples": {"operations": ["blur_face"]}}}, "steps.0.apply.make_samples.operations.0",
         "there is no 'blur_face'. Did you mean 'blur_faces'?"),
        ({"apply": {"make_samples": {"operations": [{"resize": {"size": "large"}}]}}},
         "steps.0.apply.make_samples.operations.0.resize.size", "valid integer"),
        ({"apply": {"make_samples": {"operations": [{"resize": {"size": 0}}]}}},
         "steps.0.apply.make_samples.operations.0", "a side has a pixel at least"),
        ({"keep": ["datacomp_clip_score"]}, "steps.0.keep.0", "takes a threshold, or a fraction"),
        ({"keep": [{"without": {"finding": {"off": "x"}, "reason": "y"}}]},
         "steps.0.keep.0.without.finding.off", "Did you mean 'of'?"),
        ({"union": [{"of": "x", "steps": [{"filters": ["n"]}]}]}, "steps.0.union.0.steps.0.filters",
         "Did you mean 'filter'?"),
        ({"filter": ["n"], "needs": ["n"], "otherwise": [{"colums": {}}]}, "steps.0.otherwise.0.colums",
         "Did you mean 'columns'?"),
        ({"filter": ["n"], "otherwise": [{"filter": ["m"]}]}, "steps.0", "needs: […]"),
        ({"keep": ["basic"], "needs": ["n"]}, "steps.0", "no step that may be left out"),
        ({"keep": ["basic"], "unless": ["n"], "otherwise": [{"filter": ["n"]}]}, "steps.0", "stands another keep"),
        ({"filter": ["n"], "unless": ["n"], "otherwise": [{"keep": ["basic"]}]}, "steps.0", "no step that may"),
        ({"signals": [{"phash": {"bits": 64}}]}, "steps.0.signals.0", "takes no parameters"),
        ({"apply": "factory_lib.query.DatasetQuery.serch"}, "steps.0.apply", "Did you mean 'search'?"),
        ({"needs": ["n"]}, "steps.0", "this has 0"),
        ({"signals": None}, "steps.0.signals", "valid list"),
        ({"keep": None}, "steps.0.keep", "valid list"),
        ({"apply": None}, "steps.0.apply", "one name"),
        ({"apply": "factory_lib.signals.hashes.phash"}, "steps.0.apply", "phash is a signal: it stands below signals."),
        ({"keep": ["factory_lib.signals.hashes.phash"]}, "steps.0.keep.0", "is a signal: it stands below signals."),
        ({"keep": [{"factory_lib.curation.clusters.cluster_of": {"vector": "v"}}]}, "steps.0.keep.0", "is a signal"),
        ({"signals": ["factory_lib.curation.basic.BasicFilter"]}, "steps.0.signals.0", "is a filter: it stands below keep."),
        ({"signals": [f"{__name__}.Undeclared"]}, "steps.0.signals.0", "is Undeclared, and no signal."),
        ({"apply": "factory_lib.augmentation.StripExif"}, "steps.0.apply", "an operation: it stands among"),
        ({"apply": "factory_lib.curation.basic.UNSAFE"}, "steps.0.apply", "is str, and no function"),
        ({"keep": [{"head": {"score": "n", "most": float("nan")}}]}, "steps.0.keep.0.head.most", "nan is no number"),
    ],
)  # fmt: skip
def test_mistakes_have_a_place(step: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        stage_of(step)
    [found] = raised.value.errors()
    assert ".".join(map(str, found["loc"])) == place
    assert said in found["msg"]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"file": "a.npy"}, "a stage has the samples of one dataset"),
        ({"of": None, "file": "a.npy", "by_shard": True}, "no by_shard"),
        ({"by_shard": True, "steps": [{"filter": ["n"], "needs": ["n"]}]}, "no by_shard"),
    ],
)
def test_attributes_that_exclude_each_other(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        stage_of(**attributes)


@pytest.mark.parametrize(
    ("attributes", "place", "said"),
    [
        ({"owners": ["some body"]}, "owners", "Invalid owner 'some body'. Owner must be an email address"),
        ({"group": "a b"}, "group", "not a valid asset group name"),
        ({"kinds": ["a b"]}, "kinds", "invalid tag keys"),
        ({"of": "made"}, "of", "a stage cannot read what it makes."),
        ({"steps": [{"union": ["other", "made"]}]}, "steps.0.union", "a stage cannot read what it makes."),
        ({"volume": {"red": float("nan")}}, "volume.red", "nan is no number"),
        ({"only_with": "FACTORY_DERIVED"}, "only_with", "valid list"),
        ({"only_with": None}, "only_with", "valid list"),
    ],
)
def test_mistakes_of_attributes_have_a_place(attributes: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        StageAttributes.model_validate({"dataset": "made", "of": "given", **attributes})
    [found] = raised.value.errors()
    assert ".".join(map(str, found["loc"])) == place
    assert said in found["msg"]


def code_of(*steps: dict[str, Any], **attributes: Any) -> str | None:
    asset = asset_of(stage_of(*steps, **attributes))
    return asset.code_versions_by_key[asset.key]


def test_what_a_step_is_given_is_code() -> None:
    def code(side: int, condition: str = "n > 1", needs: str = "n", **attributes: Any) -> str | None:
        few = {"of": "other", "steps": [{"filter": [condition], "needs": [needs]}]}
        without = {"finding": few, "reason": "there"}
        return code_of({"keep": [{"basic": {"min_side": side}}, {"without": without}]}, **attributes)

    assert code(200) == code(200, description="Large ones.", stale_hours=3)
    assert len({code(200), code(300), code(200, "n > 2"), code(200, needs="m"), code(200, of="another")}) == 5
    assert code_of({"signals": ["phash"]}) != code_of({"signals": ["dhash"]})


def test_a_file_that_changes_is_other_code(tmp_path: Path) -> None:
    file, versions = tmp_path / "rows.npy", []
    for rows in (3, 4, 4):
        np.save(file, np.zeros((rows, 2)))
        versions.append(code_of(of=None, file=str(file), stays=True))
    assert versions[0] != versions[1] == versions[2]


TRACK = sorted((ROOT / "docs" / "datacomp_track").rglob("defs.yaml"))


@pytest.mark.parametrize(
    "path", [ROOT / "tests" / "fixtures" / "default_graph.yaml", *TRACK], ids=lambda p: p.parent.name
)
def test_the_schema_takes_what_loads(path: Path) -> None:
    """Every document: `dg check yaml` looks at the last one of a file."""
    schema = jsonschema.Draft202012Validator(CurationStage.get_model_cls().model_json_schema())
    documents = list(yaml.safe_load_all(path.read_text()))
    assert [error.message for one in documents for error in schema.iter_errors(one["attributes"])] == []
    documents[-1]["attributes"]["steps"] = [{"keep": [{"basic": {"min_sides": 3}}]}]
    assert not schema.is_valid(documents[-1]["attributes"])
