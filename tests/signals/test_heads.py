"""Heads with weights that somebody brings: as their publishers' torch modules compute, and what does not fit is said."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch
from torch import nn

from factory_lib import DatasetQuery, Vector, signal
from factory_lib.curation import HeadFilter, keep
from factory_lib.errors import FactoryError, SignalError
from factory_lib.signals.heads import (
    AESTHETIC_V1_B32,
    AESTHETIC_V1_L14,
    AESTHETIC_V2_L14,
    NSFW_B32,
    NSFW_H14,
    NSFW_L14,
    WATERMARK,
    Architecture,
    Head,
)

TINY = Architecture("tiny", (2, 2, 1), rectified=1, unit=False)


class Normalization(nn.Module):
    """As ports of keras' layer have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(1, width))
        self.register_buffer("variance", torch.rand(1, width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.variance.sqrt()


def batch_norm(width: int) -> nn.Module:
    made = nn.BatchNorm1d(width, eps=0.0)
    made.running_mean = torch.randn(width)
    made.running_var = torch.rand(width) + 0.5
    nn.init.uniform_(made.weight)
    nn.init.uniform_(made.bias)
    return made


def nsfw_l14() -> nn.Module:
    """DataComp's `NsfwImageWrapper` names the layers so."""
    names = ["norm", "dense", "relu", "dense1", "relu1", "dense2", "relu2", "dense3", "sigmoid"]
    layers = [batch_norm(768), nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 256)]
    layers += [nn.ReLU(), nn.Linear(256, 1), nn.Sigmoid()]
    return nn.Sequential(OrderedDict(zip(names, layers, strict=True)))


def nsfw_b32() -> nn.Module:
    layers = [nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid()]
    return nn.Sequential(Normalization(512), *layers)


def nsfw_h14() -> nn.Module:
    widths, layers = [1024, 1024, 2048, 1024, 256, 128], []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(OrderedDict(layers=nn.Sequential(*layers, nn.Linear(128, 16), nn.Linear(16, 1))))


def aesthetic_v2() -> nn.Module:
    layers = [nn.Linear(768, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64)]
    layers += [nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)]
    return nn.Sequential(OrderedDict(layers=nn.Sequential(*layers)))


def watermark() -> nn.Module:
    layers = [nn.Linear(1536, 625), nn.ReLU(), nn.Dropout(0.3), nn.Linear(625, 256), nn.ReLU(), nn.Linear(256, 2)]
    return nn.Sequential(*layers, nn.Softmax(dim=1))


PUBLISHED: dict[str, tuple[Architecture, Any]] = {
    "nsfw l14": (NSFW_L14, nsfw_l14),
    "nsfw b32": (NSFW_B32, nsfw_b32),
    "nsfw h14": (NSFW_H14, nsfw_h14),
    "aesthetic v1 l14": (AESTHETIC_V1_L14, lambda: nn.Linear(768, 1)),
    "aesthetic v1 b32": (AESTHETIC_V1_B32, lambda: nn.Linear(512, 1)),
    "aesthetic v2": (AESTHETIC_V2_L14, aesthetic_v2),
    "watermark": (WATERMARK, watermark),
}


def saved(path: Path, tensors: dict[str, Any]) -> str:
    safetensors.torch.save_file({name: torch.as_tensor(one).contiguous() for name, one in tensors.items()}, path)
    return str(path)


def tiny(**changed: Any) -> dict[str, Any]:
    """x -> relu(x0 - x1, 2 x0 + 1) -> a + 3 b + .5"""
    tensors = {
        "0.weight": torch.tensor([[1.0, -1.0], [2.0, 0.0]]),
        "0.bias": torch.tensor([0.0, 1.0]),
        "1.weight": torch.tensor([[1.0, 3.0]]),
        "1.bias": torch.tensor([0.5]),
    }
    tensors |= changed
    return {name: value for name, value in tensors.items() if value is not None}


def pool(rows: list[Any], column: str = "clip") -> DatasetQuery:
    vectors = pa.array(rows, pa.list_(pa.float32()))
    return DatasetQuery.from_arrow(pa.table({"n": range(len(rows)), column: vectors}))


def values(query: DatasetQuery, name: str) -> list[Any]:
    return query.order_by("n").to_arrow()[name].to_pylist()


# --- what they compute -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("engine")
def test_a_chain_that_is_computed_by_hand(tmp_path: Path) -> None:
    uri = saved(tmp_path / "tiny.safetensors", tiny())
    given = pool([[3.0, 1.0], [-1.0, 1.0], [3.0, 4.0]])
    # (2, 7) -> 2 + 21 + .5; (-2, -1) -> (0, 0) -> .5; (-1, 7) -> (0, 7) -> 21.5
    assert values(given.add_signals(Head(uri, TINY).signal("score")), "score") == [23.5, 0.5, 21.5]
    unit = replace(TINY, unit=True)
    # (.6, .8): (-.2, 2.2) -> (0, 2.2) -> 7.1
    assert values(given.add_signals(Head(uri, unit).signal("score")), "score")[2] == pytest.approx(7.1, abs=1e-6)
    sigmoid = replace(TINY, output="sigmoid")
    assert values(given.add_signals(Head(uri, sigmoid).signal("score")), "score")[1] == pytest.approx(0.62245933)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("which", PUBLISHED)
def test_published_heads_as_their_modules_in_torch(which: str, tmp_path: Path) -> None:
    architecture, made = PUBLISHED[which]
    torch.manual_seed(0)
    module = made().eval()
    uri = saved(tmp_path / "head.safetensors", module.state_dict())
    vectors = torch.randn(7, architecture.widths[0])
    with torch.inference_mode():
        unit = nn.functional.normalize(vectors, dim=1)
        expected = module(vectors if which == "watermark" else unit)[:, 0].numpy()
    found = values(pool(vectors.tolist()).add_signals(Head(uri, architecture).signal("score")), "score")
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.usefixtures("engine")
def test_a_linear_head_in_the_database(tmp_path: Path) -> None:
    torch.manual_seed(1)
    head = Head(saved(tmp_path / "head.safetensors", aesthetic_v2().state_dict()), AESTHETIC_V2_L14)

    @signal(output=Vector(768), batch=True, inputs={"vectors": "raw"}, version="1")
    def clip(vectors: np.ndarray) -> np.ndarray:
        return vectors

    rows = [*torch.randn(20, 768).tolist(), [], [0.0] * 768]
    stored = DatasetQuery(pool(rows, "raw").add_signals(clip).save("stored"))
    both = stored.add_signals(head.signal("signal")).mutate(expression=head.expression())
    found, expected = values(both, "expression"), values(both, "signal")
    assert found[20:] == expected[20:] == [None, None]
    np.testing.assert_allclose(found[:20], expected[:20], rtol=1e-5)
    # v1, and a head that standardises first, are linear, too
    one = Architecture("standardised", (768, 1), standardised=True)
    module = nn.Sequential(batch_norm(768), nn.Linear(768, 1)).eval()
    head = Head(saved(tmp_path / "one.safetensors", module.state_dict()), one)
    both = stored.add_signals(head.signal("signal")).mutate(expression=head.expression())
    np.testing.assert_allclose(values(both, "expression")[:20], values(both, "signal")[:20], rtol=1e-4, atol=1e-5)
    with pytest.raises(SignalError, match=r"tiny is not linear: 1 ReLUs.*head\.signal"):
        Head("nowhere", TINY).expression()


@pytest.mark.usefixtures("engine")
def test_vectors_that_cannot_be_scored_are_counted_with_a_reason(tmp_path: Path) -> None:
    head = Head(saved(tmp_path / "tiny.safetensors", tiny()), TINY)
    linear = Head(
        saved(tmp_path / "one.safetensors", {"weight": [[2.0, 1.0]], "bias": [0.0]}), Architecture("one", (2, 1))
    )
    rows = [[3.0, 1.0], [], [0.0, 0.0], [1.0, float("nan")], [float("inf"), 1.0], [1.0, 2.0, 3.0, 4.0]]
    found = pool(rows).add_signals(head.signal("score")).mutate(linear=linear.expression())
    assert values(found, "score") == [23.5, *[None] * 5]
    assert values(found, "score_error") == [
        None,
        "no vector",
        "ValueError: the vector is all zeros",
        *["ValueError: the vector has numbers that are not finite"] * 2,
        "ValueError: the vector has 4 numbers, not 2",
    ]
    assert values(found, "linear") == [pytest.approx(7 / 10**0.5), *[None] * 5]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("unit", [True, False])
def test_numbers_at_the_ends_of_float32(unit: bool, tmp_path: Path) -> None:
    """The signal and the expression agree; what no float32 can hold is no score."""
    uri = saved(tmp_path / "one.safetensors", {"weight": [[2.0, 1.0]], "bias": [0.5]})
    head = Head(uri, Architecture("one", (2, 1), unit=unit))
    rows = [[1e30, 1e30], [1e-30, 1e-30], [3e38, 3e38], [-1e-44, 0.0], [3.0, -4.0]]
    found = pool(rows).add_signals(head.signal("score")).mutate(linear=head.expression())
    given = np.array(rows, np.float32).astype(np.float64)
    exact = given @ [2, 1] / (np.hypot(*given.T) if unit else 1) + 0.5
    expected = [pytest.approx(one, rel=1e-6) if abs(one) < 3.4e38 else None for one in exact]
    assert values(found, "score") == values(found, "linear") == expected
    reason = None if unit else "ValueError: the score is too large for float32"
    assert values(found, "score_error") == [None, None, reason, None, None]


@pytest.mark.usefixtures("engine")
def test_weights_of_any_floating_type_and_of_a_larger_model(tmp_path: Path) -> None:
    for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        tensors = {f"classifier.{name}": value.to(kind) for name, value in tiny().items()}
        uri = saved(tmp_path / "model.safetensors", tensors | {"blocks.0.weight": torch.zeros(3, 3)})
        head = Head(uri, TINY, prefix="classifier.")
        assert values(pool([[3.0, 1.0]]).add_signals(head.signal("score")), "score") == [23.5]


@pytest.mark.usefixtures("engine")
def test_its_filter(tmp_path: Path) -> None:
    head = Head(saved(tmp_path / "tiny.safetensors", tiny()), TINY)
    given = DatasetQuery(pool([[3.0, 1.0], [-1.0, 1.0], []]).add_signals(head.signal("score")).save("scored"))
    kept = keep(given, HeadFilter("score", least=1, vectors="clip", width=2))
    assert values(kept.samples, "n") == [0, 2]
    assert kept.removed() == {"score below 1": 1}
    assert (
        "score takes vectors of 3 numbers"
        in keep(given, HeadFilter("score", least=1, vectors="clip", width=3)).judged.remark
    )


# --- fingerprints ------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_bytes(tmp_path: Path) -> None:
    here = saved(tmp_path / "a.safetensors", tiny())
    before = Head(here, TINY).signal("score").fingerprint
    (tmp_path / "b.safetensors").write_bytes(Path(here).read_bytes())
    there = f"file://{tmp_path / 'b.safetensors'}"
    assert Head(there, TINY).signal("score").fingerprint == before
    assert Head(here, replace(TINY, name="another word", made_for="x")).signal("other").fingerprint == before
    assert Head(here, replace(TINY, rectified=0)).signal("score").fingerprint != before
    saved(tmp_path / "a.safetensors", tiny(**{"1.bias": torch.tensor([0.75])}))
    assert Head(here, TINY).signal("score").fingerprint != before


# --- what does not fit -------------------------------------------------------------------------------------------------

STANDARD = replace(TINY, standardised=True, name="standard")
WRONG: dict[str, tuple[Architecture, dict[str, Any], str]] = {
    "width": (
        TINY,
        {"0.weight": torch.ones(2, 3)},
        r"tensor 0\.weight has the shape \(2, 3\), tiny \(2-2-1\) takes \(2, 2\)",
    ),
    "turned": (TINY, {"1.weight": torch.ones(2, 1)}, r"1\.weight has the shape \(2, 1\).*transpose it"),
    "bias": (TINY, {"0.bias": torch.ones(3)}, r"0\.bias has the shape \(3,\).* takes \(2,\)"),
    "missing": (TINY, {"1.bias": None}, r"has no tensor 1\.bias, of shape \(1,\): tiny needs one"),
    "layers": (
        TINY,
        {"2.weight": torch.ones(1, 1)},
        r"has 3 linear layers, tiny has 2 \(2-2-1\); its tensors: 0\.bias, 0\.weight",
    ),
    "surplus": (TINY, {"scale": torch.ones(2)}, r"has tensors that tiny does not have: scale"),
    "nan": (
        TINY,
        {"0.bias": torch.tensor([1.0, float("nan")])},
        r"tensor 0\.bias has 1 of 2 numbers that are not finite",
    ),
    "kind": (TINY, {"0.bias": torch.ones(2, dtype=torch.int8)}, r"tensor 0\.bias is of I8"),
    "no mean": (STANDARD, {}, r"has no tensor mean, of shape \(2,\): standard needs one"),
    "variance": (
        STANDARD,
        {"norm.mean": torch.zeros(2), "norm.variance": torch.tensor([1.0, 0.0])},
        r"tensor norm\.variance is 0 in place 1, and has to be positive",
    ),
    "no variance": (STANDARD, {"norm.mean": torch.zeros(2)}, r"has no tensor norm\.variance, of shape \(2,\)"),
}


@pytest.mark.parametrize("which", WRONG)
def test_weights_that_do_not_fit_are_told_by_name(which: str, tmp_path: Path) -> None:
    architecture, changed, said = WRONG[which]
    uri = saved(tmp_path / "head.safetensors", tiny(**changed))
    with pytest.raises(SignalError, match=f"head.safetensors.*{said}"):
        Head(uri, architecture).weights()


def test_files_that_are_no_safetensors(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1, 2)}, tmp_path / "head.pt")
    with pytest.raises(SignalError, match=r"head\.pt is no safetensors file.*weights_only=True"):
        Head(str(tmp_path / "head.pt"), TINY).weights()
    with pytest.raises(FactoryError, match="head.pt"):  # the nearest name
        Head(str(tmp_path / "haed.pt"), TINY).weights()


def test_chains_that_make_no_score() -> None:
    with pytest.raises(SignalError, match="are no chain of layers"):
        Architecture("short", (2,))
    with pytest.raises(SignalError, match="are no chain of layers"):
        Architecture("many", (2, 1), rectified=2)
    with pytest.raises(SignalError, match="makes no score"):
        Architecture("two", (2, 2))
    with pytest.raises(SignalError, match="makes no score"):
        Architecture("one", (2, 1), output="softmax")
