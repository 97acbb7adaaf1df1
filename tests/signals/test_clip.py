"""CLIP signals: what TinyCLIP knows, and that a checkpoint of transformers computes what transformers does."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from factory_assets.demo.rendered.draw import render
from factory_assets.demo.rendered.scene import Scene
from factory_lib.compute.run import compute
from factory_lib.errors import SignalError
from factory_lib.signals import clip
from factory_lib.signals.checkpoint import BUNDLED, file_digest, resolve
from factory_lib.signals.clip import Clip
from tests.clip_checkpoint import save_random_clip

RED_STAR = Scene("red", "star", "large", "plain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))


def jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG")
    return out.getvalue()


def test_the_ready_signals_are_columns_clip_and_clip_text() -> None:
    assert clip.encode_image.columns == {"clip": "Array(BFloat16)", "clip_error": "LowCardinality(Nullable(String))"}
    assert clip.encode_text.name == "clip_text"
    assert clip.encode_image.members == ("image",)
    assert clip.encode_text.values == ("caption",)
    named = Clip(name="mine")
    assert (named.encode_image.name, named.encode_text.name, named.dimension) == ("mine", "mine_text", 64)


def test_a_picture_is_nearest_to_the_text_that_says_what_it_shows(tmp_path: Path) -> None:
    shown = render(RED_STAR, "for-the-test")
    path = tmp_path / "star.jpg"
    path.write_bytes(jpeg(shown))
    texts = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("star", "circle", "cross")]
    vectors = np.stack([clip.one(text) for text in texts])
    for given in (shown, path, str(path), path.read_bytes()):
        vector = clip.one(given)
        assert vector.dtype == np.float32
        assert vector.shape == (64,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert texts[int((vectors @ vector).argmax())] == "a red star"


def test_a_text_is_told_from_the_name_of_a_picture() -> None:
    with pytest.raises(SignalError, match=r"cannot read 'no-such-picture\.jpg'"):
        clip.one("no-such-picture.jpg")
    assert clip.one("a photo of a\0 star").shape == (64,)


def test_the_engine_computes_both_signals_and_names_what_failed(tmp_path: Path) -> None:
    star, ring = jpeg(render(RED_STAR, "1")), jpeg(render(Scene("blue", "ring", "medium", "dotted"), "2"))
    path = tmp_path / "bytes"
    path.write_bytes(star + b"not an image" + ring)
    places = [(0, len(star)), (len(star), 12), (len(star) + 12, len(ring))]
    rows = pa.RecordBatch.from_pylist(
        [
            {
                "shard": "s",
                "position": number,
                "sample_id": number,
                "image": {"uri": str(path), "offset": offset, "size": size},
                "caption": caption,
            }
            for number, ((offset, size), caption) in enumerate(
                zip(places, ("a red star", "a red star", None), strict=True)
            )
        ],
        schema=pa.schema(
            [
                ("shard", pa.string()),
                ("position", pa.uint32()),
                ("sample_id", pa.uint64()),
                ("image", pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])),
                ("caption", pa.string()),
            ]
        ),
    )
    done = pa.Table.from_batches(compute([clip.encode_image, clip.encode_text], [rows], workers=1)).sort_by("position")
    image, text = done["clip"].to_pylist(), done["clip_text"].to_pylist()
    assert [len(vector) for vector in image] == [64, 0, 64]
    assert [len(vector) for vector in text] == [64, 64, 0]
    assert "UnidentifiedImageError" in done["clip_error"][1].as_py()
    assert "caption" in done["clip_text_error"][2].as_py()
    np.testing.assert_allclose(image[0], clip.one(star), atol=1e-5)
    assert np.dot(image[0], text[0]) > np.dot(image[2], text[0])


def test_a_batch_gives_what_single_samples_give(folder: Path, picture: Image.Image) -> None:
    pictures = [picture, picture.rotate(90), picture.resize((200, 31))]
    for signals in (Clip(), Clip(folder)):
        target = signals.encode_image.instance()
        together = target([target.prepare(one) for one in pictures])
        together = together / np.linalg.norm(together, axis=1, keepdims=True)
        for vector, one in zip(together, pictures, strict=True):
            np.testing.assert_allclose(vector, signals.one(one), atol=2e-5)
        captions = ["a star", "cat and dog", "x"]
        together = signals.encode_text.instance()(captions)
        together = together / np.linalg.norm(together, axis=1, keepdims=True)
        np.testing.assert_allclose(together, np.stack([signals.one(text) for text in captions]), atol=2e-5)


def test_a_transformers_checkpoint_computes_what_transformers_does(folder: Path, picture: Image.Image) -> None:
    import torch
    from transformers import CLIPModel, CLIPTokenizerFast

    signals = Clip(folder, name="mine")
    assert signals.dimension == 24
    model = CLIPModel.from_pretrained(folder).eval()
    tokens = CLIPTokenizerFast.from_pretrained(folder)(["red cat"], return_tensors="pt")
    # CLIP's preprocessing by hand: shorter side to 32 (bicubic), centre crop, its own mean and deviation.
    scaled = picture.resize((int(70 * 32 / 50), 32), Image.Resampling.BICUBIC)
    left = (scaled.width - 32) // 2
    levels = np.asarray(scaled.crop((left, 0, left + 32, 32)), dtype=np.float32) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
    deviation = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
    pixels = torch.from_numpy(((levels - mean) / deviation).transpose(2, 0, 1)[None])
    with torch.no_grad():
        made = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
    np.testing.assert_allclose(signals.one(picture), made.image_embeds[0].numpy(), atol=2e-3)
    np.testing.assert_allclose(signals.one("red cat"), made.text_embeds[0].numpy(), atol=1e-5)
    assert np.array_equal(signals.one(picture), Clip(folder).one(picture))


def test_long_captions_are_cut_to_the_context(folder: Path) -> None:
    signals = Clip(folder)
    np.testing.assert_array_equal(signals.one("abc " * 50), signals.one("abc " * 60))


def test_siglip_pads_captions_to_full_length(tmp_path: Path, picture: Image.Image) -> None:
    import torch
    from transformers import CLIPTokenizerFast, SiglipModel

    signals = Clip(save_random_clip(tmp_path, siglip=True))
    assert signals.dimension == 16
    assert np.linalg.norm(signals.one(picture)) == pytest.approx(1, abs=1e-5)
    tokens = CLIPTokenizerFast.from_pretrained(tmp_path)(["red"], padding="max_length", max_length=16)
    with torch.no_grad():
        made = SiglipModel.from_pretrained(tmp_path).eval().get_text_features(torch.tensor(tokens["input_ids"]))
    expected = getattr(made, "pooler_output", made)[0].numpy()
    np.testing.assert_allclose(signals.one("red"), expected / np.linalg.norm(expected), atol=1e-5)


def test_signals_travel_to_worker_processes_without_the_model(folder: Path, picture: Image.Image) -> None:
    for signals in (Clip(), Clip(folder)):
        expected = signals.encode_image.one(picture)
        sent = pickle.dumps(signals.encode_image)
        assert len(sent) < 4000
        np.testing.assert_array_equal(pickle.loads(sent).one(picture), expected)


def test_bfloat16_computes_nearly_the_same(picture: Image.Image) -> None:
    assert np.dot(clip.one(picture), Clip(precision="bfloat16").one(picture)) > 0.99


def test_the_fingerprint_follows_weights_preprocessing_and_precision_alone(folder: Path, tmp_path: Path) -> None:
    def fingerprint(path: Path, **options: str) -> str:
        return Clip(path, **options).encode_image.fingerprint

    elsewhere = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert fingerprint(elsewhere) == fingerprint(folder) == fingerprint(folder, device="cpu")
    assert fingerprint(folder, precision="bfloat16") != fingerprint(folder)
    assert fingerprint(folder, name="other") == fingerprint(folder)
    described = json.loads((elsewhere / "preprocessor_config.json").read_text())
    described["image_mean"] = [0.5, 0.5, 0.5]
    (elsewhere / "preprocessor_config.json").write_text(json.dumps(described))
    assert fingerprint(elsewhere) != fingerprint(folder)
    other = save_random_clip(tmp_path / "other", seed=1)
    assert fingerprint(other) != fingerprint(folder)
    assert Clip(folder).encode_text.fingerprint != fingerprint(folder)


def test_a_digest_is_remembered_by_path_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from factory_lib.signals import checkpoint

    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(checkpoint, "_REMEMBER_FROM", 4)
    file = tmp_path / "weights.bin"
    file.write_bytes(b"12345")
    first = file_digest(file)
    # sha256 of "12345"
    assert first == "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    checkpoint._file_digest.cache_clear()
    (note,) = (tmp_path / "home" / "digests").iterdir()
    note.write_text("0" * 64)
    assert file_digest(file) == "0" * 64
    file.write_bytes(b"123456")
    assert file_digest(file) not in (first, "0" * 64)


def test_the_ready_signals_take_the_checkpoint_that_the_environment_names(folder: Path) -> None:
    code = "from factory_lib.signals import clip; print(clip.encode_image.output.size, clip.encode_image.name)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"FACTORY_CLIP": str(folder), "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    assert done.stdout.decode().split() == ["24", "clip"], done.stderr.decode()


def test_nothing_heavy_loads_before_the_first_value(folder: Path) -> None:
    """Also a hub id: it is found in the cache, and its commit stands for its weights."""
    code = (
        "import sys\n"
        "from factory_lib.signals import clip\n"
        "a, b, c = clip.encode_image, clip.Clip(sys.argv[1]).encode_text, clip.Clip('someone/model', name='l14')\n"
        "assert a.fingerprint != b.fingerprint\n"
        "assert c.checkpoint.components() == {'weights': 'someone/model@' + 'c' * 40}, c.checkpoint.components()\n"
        "assert c.dimension == 24 and 'someone/model' in repr(c)\n"
        "heavy = {'torch', 'transformers', 'PIL.Image'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    cache = folder.parent / "hub"
    repository = cache / "models--someone--model"
    shutil.copytree(folder, repository / "snapshots" / ("c" * 40))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c" * 40)
    environment = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=environment, cwd=Path(__file__).parents[2], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def test_checkpoints_that_cannot_be_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SignalError, match=r"There is no checkpoint '/no/such/folder'"):
        Clip("/no/such/folder")
    with pytest.raises(SignalError, match=r"has no config\.json"):
        Clip(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    with pytest.raises(SignalError, match="describes a 'bert', which has no image and text towers"):
        Clip(tmp_path)
    with pytest.raises(SignalError, match="precision='int8'"):
        Clip(precision="int8")  # type: ignore[arg-type]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {}, "text_config": {}}))
    assert resolve(tmp_path).dimension == 512
    with pytest.raises(SignalError, match="cannot be loaded"):
        Clip(tmp_path).one("text")
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(SignalError, match="is no TinyCLIP: its header says 'no format'"):
        Clip(tmp_path / "other.safetensors").one("text")


def test_a_hub_that_cannot_be_reached_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def refuse(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(SignalError, match="'openai/clip' is no folder here, and cannot be had from the hub: Local"):
        Clip("openai/clip")


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[str] = []

    class Session:
        def head(self, url: str, **_: object) -> None:
            asked.append(url)
            raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    with pytest.raises(SignalError, match=r"the cache does not have it, and https://.* cannot be reached: no route"):
        Clip("openai/not-there")
    assert len(asked) == 1


def test_the_bundled_weights_are_small() -> None:
    assert BUNDLED.stat().st_size < 2_000_000
