"""A CLIP with random weights, saved as transformers saves one: it means nothing, but loads like a real one."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase


def save_random_clip(folder: Path, *, siglip: bool = False, seed: int = 0) -> Path:
    """Write model, image processor and tokenizer (letters as tokens); embeddings have 24 numbers, SigLIP's 16."""
    import torch
    import transformers

    torch.manual_seed(seed)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 60, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    if siglip:
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        transformers.SiglipModel(config).save_pretrained(folder)
        transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        transformers.CLIPModel(config).save_pretrained(folder)
        size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        transformers.CLIPImageProcessorPil(**size).save_pretrained(folder)
    letters = ["<|startoftext|>", "<|endoftext|>", *ascii_lowercase, *(f"{letter}</w>" for letter in ascii_lowercase)]
    vocabulary = {token: number for number, token in enumerate(letters)}
    transformers.CLIPTokenizerFast(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder
