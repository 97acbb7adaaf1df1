"""What the UI shows of a training: lines and numbers while it runs, the scores and the curve when it is done."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from factory_assets.training.noise import compare, interval

WIDTH, HEIGHT = 420, 120
"""Of the loss curve, in pixels."""

TIERS = ("local", "cache", "shared", "origin")

_COLOURS = {"model": "#2563eb", "baseline": "#9ca3af"}


def live_line(message: Mapping[str, Any]) -> str:
    """A message of a training as a line of the log."""
    if message["kind"] == "scored":
        return f"{message['part']}: accuracy {message['accuracy']:.1%} on {message['pairs']:,} test pairs"
    place = f"{message['part']}: step {message['step']:,} of {message['steps']:,}, epoch {message['epoch']}"
    if message["kind"] == "checkpoint":
        return f"{place}: checkpoint written"
    if message["kind"] == "resumed":
        return f"{place}: taken up from a checkpoint"
    speed = message["speed"]
    came = {tier: size for tier in TIERS if (size := speed.get(f"bytes_{tier}"))}
    read = ", ".join(f"{size / 1e6:.1f} MB {tier}" for tier, size in came.items()) or "nothing"
    return (
        f"{place}: loss {message['loss']:.3f}, {speed['samples_per_second']:,.0f} samples/s, "
        f"{speed['wait_share']:.0%} of the time waiting for the loader ({speed['stalls']:.0f} stalls), "
        f"{speed['decode_share']:.0%} of its time decoding, read {read}"
    )


def live_metadata(message: Mapping[str, Any], version: str) -> dict[str, Any]:
    """A report of a training as numbers that plot over time."""
    numbers = speed_metadata(message["speed"])
    shown = {"step": message["step"], "steps": message["steps"], "epoch": message["epoch"], "loss": message["loss"]}
    if message["part"] != "model":  # so that the curves of two models are two plots
        shown = {f"{message['part']}_{name}": value for name, value in shown.items()}
        numbers = {}
    return {"trained_on": version, **shown, **numbers}


def speed_metadata(speed: Mapping[str, float]) -> dict[str, Any]:
    """How fast, waiting for what, read from where."""
    shown = ("samples_per_second", "wait_share", "decode_share", "stalls", "substituted")
    read = {f"megabytes_{tier}": size / 1e6 for tier in TIERS if (size := speed.get(f"bytes_{tier}"))}
    return {**{name: float(speed[name]) for name in shown}, **read}


def model_metadata(found: Mapping[str, Any], facts: Mapping[str, str], weights: Path, seconds: float) -> dict[str, Any]:
    """A finished model's event.

    Args:
        found: see `asset.outcome`.
        facts: header of the weights.
        weights: the stored file.
        seconds: of the whole run.
    """
    model = found["model"]
    low, high = interval(model["metrics"]["accuracy"], model["metrics"]["pairs"])
    numbers: dict[str, Any] = {
        "model": weights.stem,
        "weights": dg.MetadataValue.path(str(weights)),
        "trained_on": facts["trained_on"],
        "table": facts["table"],
        "recipe": facts["recipe"],
        "decoder": facts["decoder"],
        "samples": model["samples"],
        "accuracy": model["metrics"]["accuracy"],
        "accuracy_low": low,
        "accuracy_high": high,
        "auc": model["metrics"]["auc"],
        "chance": model["metrics"]["chance"],
        "test_pairs": model["metrics"]["pairs"],
        "steps": model["steps"],
        "resumed_at_step": model["resumed_at"],
        "processes": model["processes"],
        "accelerator": model["accelerator"],
        "training_seconds": model["seconds"],
        "seconds": seconds,
        "loss_curve": loss_curve({name: found[name]["losses"] for name in ("model", "baseline") if name in found}),
    }
    if model["speed"]:
        numbers |= speed_metadata(model["speed"])
    for name, gain in (("baseline", "gain_over_baseline"), ("previous", "gain_over_previous")):
        if name in found:
            numbers |= _compared(name, gain, model["metrics"], found[name]["metrics"])
    return numbers


def _compared(name: str, gain: str, metrics: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    difference = compare(metrics, other)
    low, high = interval(other["accuracy"], other["pairs"])
    return {
        f"{name}_accuracy": other["accuracy"],
        f"{name}_accuracy_low": low,
        f"{name}_accuracy_high": high,
        gain: difference.value,
        f"{gain}_low": difference.low,
        f"{gain}_high": difference.high,
        f"compared_with_{name}": str(difference),
    }


def loss_curve(curves: Mapping[str, Sequence[Sequence[float]]]) -> dg.MarkdownMetadataValue:
    """Loss by step as a picture in Markdown, one line a model."""
    points = [point for curve in curves.values() for point in curve]
    last = max((step for step, _ in points), default=1) or 1
    top = max((loss for _, loss in points), default=1.0) or 1.0
    lines = []
    for number, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{step / last * WIDTH:.1f},{(1 - loss / top) * HEIGHT:.1f}" for step, loss in curve)
        colour = _COLOURS.get(name, "#111827")
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="{WIDTH - 70}" y="{14 + 14 * number}" fill="{colour}" font-size="12">{name}</text>')
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">{"".join(lines)}</svg>'
    data = base64.b64encode(drawn.encode()).decode()
    caption = f"Loss over {last:,} steps, from 0 to {top:.2f}."
    return dg.MetadataValue.md(f"![Loss by step](data:image/svg+xml;base64,{data})\n\n{caption}")
