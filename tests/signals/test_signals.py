"""Declaring signals: inputs, outputs, and errors that say what to do."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from factory_lib.errors import SignalError
from factory_lib.signals import Member, Vector, signal
from factory_lib.signals.hashes import phash
from factory_lib.signals.inputs import Input
from factory_lib.signals.outputs import ERROR_TYPE, output_of

if TYPE_CHECKING:
    from PIL import Image as Later


class Stats(NamedTuple):
    words: int
    name: str | None
    tags: list[str]


@dataclass
class Box:
    left: float
    top: np.float64


class Flags(TypedDict):
    ok: bool


def picture(colour: tuple[int, int, int] = (200, 10, 30), size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, colour)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("annotation", "clickhouse", "arrow"),
    [
        (int, "Nullable(Int64)", pa.int64()),
        (float, "Nullable(Float32)", pa.float32()),
        (str, "Nullable(String)", pa.string()),
        (bool, "Nullable(Bool)", pa.bool_()),
        (np.uint64, "Nullable(UInt64)", pa.uint64()),
        (np.int8, "Nullable(Int8)", pa.int8()),
        (np.float64, "Nullable(Float64)", pa.float64()),
        (int | None, "Nullable(Int64)", pa.int64()),
        (list[float], "Array(Float32)", pa.list_(pa.float32())),
        (list[str], "Array(String)", pa.list_(pa.string())),
        (list[list[float]], "Array(Array(Float32))", pa.list_(pa.list_(pa.float32()))),
        (Vector(64), "Array(BFloat16)", pa.list_(pa.float32())),
        (Vector(64, dtype="float32"), "Array(Float32)", pa.list_(pa.float32())),
        (
            Stats,
            "Tuple(words Nullable(Int64), name Nullable(String), tags Array(String))",
            pa.struct([("words", pa.int64()), ("name", pa.string()), ("tags", pa.list_(pa.string()))]),
        ),
        (
            Box,
            "Tuple(left Nullable(Float32), top Nullable(Float64))",
            pa.struct([("left", pa.float32()), ("top", pa.float64())]),
        ),
        (Flags, "Tuple(ok Nullable(Bool))", pa.struct([("ok", pa.bool_())])),
    ],
)
def test_a_return_type_is_a_column_type(annotation: Any, clickhouse: str, arrow: pa.DataType) -> None:
    output = output_of(annotation, "signal 'x'")
    assert output.clickhouse == clickhouse
    assert output.arrow == arrow
    nothing = output.array([None, None])
    assert nothing.type == arrow
    assert len(nothing) == 2


def test_values_become_arrow() -> None:
    values = [Stats(3, "a", ["x"]), None, Stats(4, None, [])]
    assert output_of(Stats, "").array(values).to_pylist() == [
        {"words": 3, "name": "a", "tags": ["x"]},
        {"words": None, "name": None, "tags": []},
        {"words": 4, "name": None, "tags": []},
    ]
    assert output_of(Box, "").array([Box(1.5, np.float64(2))]).to_pylist() == [{"left": 1.5, "top": 2.0}]
    assert output_of(Flags, "").array([{"ok": True}, None]).to_pylist() == [{"ok": True}, {"ok": None}]
    assert output_of(list[int], "").array([[1, 2], None]).to_pylist() == [[1, 2], []]
    assert output_of(list[list[bytes]], "").array([[[b"a"], []], None]).to_pylist() == [[[[97]], []], []]
    for value in ([None, [1]], [[None, 1]]):
        with pytest.raises(ValueError, match="a list holds None"):
            output_of(list[list[int]], "").array([value])
    top = 2**64 - 1
    assert output_of(np.uint64, "").array([np.uint64(top), None]).to_pylist() == [top, None]


def test_vectors_have_length_one_or_as_given() -> None:
    assert Vector(2).array([[3, 4], None, np.array([0, 0.5])]).to_pylist() == [
        pytest.approx([0.6, 0.8]),
        [],
        [0.0, 1.0],
    ]
    assert Vector(2, unit=False).array([(3, 4)]).to_pylist() == [[3.0, 4.0]]
    for wrong, said in (([1.0], "expected 2 numbers"), ([0, 0], "all zeros"), ([1, float("nan")], "not finite")):
        with pytest.raises(ValueError, match=said):
            Vector(2).array([wrong])
    with pytest.raises(SignalError, match="no numbers"):
        Vector(0)
    with pytest.raises(SignalError, match="'float16' is not stored"):
        Vector(4, dtype="float16")  # type: ignore[arg-type]


def test_parameters_are_inputs() -> None:
    @signal
    def looks(
        image: bytes,
        photo: Image.Image,
        late: Later.Image,
        raw: Member,
        caption: str,
        width: int | None,
        scale: float = 2,
    ) -> float:
        return scale

    assert looks.inputs == (
        Input("image", "image", "bytes"),
        Input("photo", "photo", "image"),
        Input("late", "late", "image"),
        Input("raw", "raw", "member"),
        Input("caption", "caption", "value"),
        Input("width", "width", "value", optional=True),
    )
    assert looks.members == ("image", "photo", "late", "raw")
    assert looks.values == ("caption", "width")
    assert looks.columns == {"looks": "Nullable(Float32)", "looks_error": ERROR_TYPE}
    assert looks(b"", None, None, None, "", 1) == 2


def test_inputs_are_mapped_and_overridden() -> None:
    @signal(inputs={"picture": "image", "size": ("image_size", int), "raw": bytes})
    def mapped(picture: Image.Image, size, raw) -> int:  # type: ignore[no-untyped-def]
        return 1

    assert mapped.inputs == (
        Input("picture", "image", "image"),
        Input("size", "image_size", "value"),
        Input("raw", "raw", "bytes"),
    )
    other = mapped.named("other").reading(picture="thumbnail")
    assert other.name == "other"
    assert other.reads == ("thumbnail", "image_size", "raw")
    assert mapped.reads == ("image", "image_size", "raw")
    with pytest.raises(SignalError, match="no input 'pictur'.*Did you mean 'picture'"):
        mapped.reading(pictur="x")


def test_batches_of_lists_and_arrays() -> None:
    @signal(batch=16)
    def both(caption: list[str], clip: np.ndarray[Any, Any], ids: pa.Array, image: list[bytes]) -> list[int]:
        return [0]

    assert both.batch == 16
    assert [(given.kind, given.form) for given in both.inputs] == [
        ("value", "python"),
        ("value", "numpy"),
        ("value", "arrow"),
        ("bytes", "python"),
    ]
    assert both.columns["both"] == "Nullable(Int64)"

    @signal(batch=True)
    def columns(clip: np.ndarray[Any, Any], ids: pa.Array) -> list[int]:
        return (pa.array(clip.sum(axis=1)).cast(pa.int64()).to_numpy() + ids.value_lengths().to_numpy()).tolist()  # type: ignore[no-any-return]

    assert columns.one([1.0, 2.0], [7, 7, 7, 7]) == 7


def test_classes_are_set_up_on_a_copy_and_named_in_snake_case() -> None:
    @signal(output=Vector(2), batch=True)
    class EmbedImage:
        """Embeds."""

        def __init__(self) -> None:
            self.model = ""

        def setup(self) -> None:
            self.model = "loaded"

        def prepare(self, image: Image.Image) -> float:
            assert self.model
            return float(image.width)

        def __call__(self, prepared: list[float]) -> Any:
            return np.array([[width, 0] for width in prepared])

    assert EmbedImage.name == "embed_image"
    assert EmbedImage.__doc__ == "Embeds."
    assert EmbedImage.inputs == (Input("image", "image", "image"),)
    assert EmbedImage.one(picture()).tolist() == [1.0, 0.0]
    assert EmbedImage.target.model == ""


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: signal(lambda caption: 1, output=int), "'<lambda>' cannot name a column"),
        (lambda: signal(lambda caption: 1, name="x"), "does not say what it returns"),
        (lambda: signal(lambda *captions: 1, name="x", output=int), r"\*captions cannot be an input"),
        (lambda: signal(lambda: 1, name="x", output=int), "has no inputs"),
        (lambda: signal(lambda a: 1, name="x", output=object), "no column type for the output object"),
        (lambda: signal(lambda a: 1, name="x", output=list[Vector(3)]), "no single scalar type"),
        (
            lambda: signal(lambda a: 1, name="x", output=int, inputs={"b": "c"}),
            "names 'b', which is no parameter. Known: a",
        ),
        (lambda: signal(lambda a, *, b: 1, name="x", output=int, inputs={"b": "b"}), "'b' is keyword-only"),
        (lambda: signal(lambda a: 1, name="x_error", output=int), "taken by the factory"),
        (lambda: signal(lambda a: 1, name="position", output=int), "taken by the factory"),
        (lambda: signal(lambda a: 1, name="X", output=int), "cannot name a column"),
        (lambda: signal(lambda a: 1, name="x", output=int, pinned=True), "needs a version"),
        (lambda: signal(3, name="x"), "not int"),
        (lambda: signal(phash), "'phash' is a signal already"),
        (lambda: signal(Box, name="x"), "has no __call__"),
        (lambda: signal(min, name="x", output=int), "parameters cannot be read"),
    ],
)
def test_declarations_that_cannot_be_used_say_why(declare: Any, said: str) -> None:
    with pytest.raises(SignalError, match=said):
        declare()


def test_a_class_that_needs_arguments_is_declared_by_an_object() -> None:
    class Scaled:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __call__(self, caption: str) -> int:
            return self.factor * len(caption)

    with pytest.raises(SignalError, match=r"signal\(Scaled\(…\), name=…\)"):
        signal(Scaled, name="scaled")
    assert signal(Scaled(3), name="scaled").one("four") == 12


def test_one_takes_paths_bytes_pictures_and_values(tmp_path: Path) -> None:
    @signal
    def red(image: Image.Image) -> int:
        pixel = image.getpixel((0, 0))
        assert isinstance(pixel, tuple)
        return int(pixel[0])

    @signal
    def size(image: bytes) -> int:
        return len(image)

    path = tmp_path / "one.png"
    path.write_bytes(encoded(picture()))
    assert red.one(path) == red.one(str(path)) == red.one(path.read_bytes()) == red.one(picture()) == 200
    assert size.one(path) == len(encoded(picture()))
    assert signal(lambda caption: caption[::-1], name="back", output=str).one("abc") == "cba"
    with pytest.raises(SignalError, match="needs the bytes"):
        size.one(picture())
    with pytest.raises(SignalError, match="cannot read"):
        red.one(tmp_path / "absent.png")
    with pytest.raises(SignalError, match="UnidentifiedImageError: cannot identify image file"):
        red.one(b"no image")
    with pytest.raises(SignalError, match=r"takes 1 value\(s\), 2 given"):
        red.one(path, path)
    with pytest.raises(SignalError, match="cannot be a int"):
        red.one(3)


def test_one_checks_the_value() -> None:
    with pytest.raises(SignalError, match="expected 3 numbers"):
        signal(lambda caption: [1, 2], name="v", output=Vector(3)).one("a")
    vector = signal(lambda caption: [3, 4], name="v", output=Vector(2)).one("a")
    assert vector.dtype == np.float32
    assert vector.tolist() == pytest.approx([0.6, 0.8])


def test_signals_travel_by_reference_or_by_value() -> None:
    assert pickle.loads(pickle.dumps(phash)) is phash
    assert len(pickle.dumps(phash)) < 100
    threshold = 4
    local = signal(lambda caption: len(caption) > threshold, name="long_one", output=bool)
    copy = pickle.loads(cloudpickle.dumps(local))
    assert (copy.name, copy.inputs, copy.output) == (local.name, local.inputs, local.output)
    assert copy.one("12345") is True
    assert copy.one("1234") is False


def test_setup_that_fails_ends_the_run_with_its_reason() -> None:
    class Broken:
        def setup(self) -> None:
            raise FileNotFoundError("no weights at /nowhere")

        def __call__(self, caption: str) -> int:
            return 1

    with pytest.raises(SignalError, match=r"setup\(\) failed with FileNotFoundError: no weights at /nowhere"):
        signal(Broken, name="broken").one("a")
