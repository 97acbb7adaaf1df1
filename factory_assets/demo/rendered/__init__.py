"""Rendered, captioned images whose truth is known: the input of the demo, of tests and of TinyCLIP's training."""

from factory_assets.demo.rendered.folder import RenderedFolder, add_shard, truth_path, write_folder

__all__ = ["RenderedFolder", "add_shard", "truth_path", "write_folder"]
