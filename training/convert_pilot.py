"""The pilot's weights under the project's names: the warm start of the shipped model.

python -m training.convert_pilot pilot_deep.safetensors training/runs/start.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from xmem_core.compact import F4_CHANNELS, F8_CHANNELS
from xmem_core.network import COMPACT, build_network
from xmem_core.weights import save_model

# Longest prefixes first where one begins another; each module's own inner names follow below.
MODULES = {
    "key_enc.stem": "key_encoder.stem",
    "key_enc.blocks": "key_encoder.blocks",
    "p16": "key_encoder.reduce16",
    "kp": "key_proj.key_proj",
    "shr": "key_proj.d_proj",
    "sel": "key_proj.e_proj",
    "v4": "value_encoder.join4",
    "v4r": "value_encoder.block4",
    "v8": "value_encoder.down8",
    "v8s": "value_encoder.skip8",
    "v8r": "value_encoder.block8",
    "v16": "value_encoder.down16",
    "fus1": "value_encoder.fuse1",
    "att": "value_encoder.attention",
    "fus2": "value_encoder.fuse2",
    "deep": "value_encoder.hidden_reinforce",
    "anchor": "decoder.anchor",
    "d_f": "decoder.fuse1",
    "d_att": "decoder.attention",
    "d_f2": "decoder.fuse2",
    "s8": "decoder.skip8_image",
    "u8p": "decoder.up8",
    "u8": "decoder.block8",
    "s4": "decoder.skip4_image",
    "u4p": "decoder.up4",
    "u4": "decoder.block4",
    "pred": "decoder.pred",
    "g16": "decoder.hidden_update.g16_conv",
    "g8": "decoder.hidden_update.g8_conv",
    "g4": "decoder.hidden_update.g4_conv",
    "gru": "decoder.hidden_update",
}
INNER = {
    "c1": "conv1",
    "c2": "conv2",
    "d": "downsample",
    "a": "squeeze",
    "b": "expand",
    "sp": "spatial",
    "t": "transform",
    "exp": "expand",
    "dw": "depthwise",
    "pw": "project",
}


def new_name(name: str) -> str:
    """The project's name of one of the pilot's weights. Raises KeyError for a name the pilot does not have."""
    parts = name.split(".")
    depth = 2 if parts[0] == "key_enc" else 1
    inner = [INNER.get(part, part) for part in parts[depth:]]
    return ".".join([MODULES[".".join(parts[:depth])], *inner])


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The pilot's weights, float32, by the project's names; its two joined skips are split into image and prior."""
    converted = {new_name(name): value.float() for name, value in state.items()}
    for stride, channels in ((8, F8_CHANNELS), (4, F4_CHANNELS)):
        joined = converted.pop(f"decoder.skip{stride}_image.weight")
        converted[f"decoder.skip{stride}_image.weight"] = joined[:, :channels].contiguous()
        converted[f"decoder.skip{stride}_prior.weight"] = joined[:, channels:].contiguous()
    return converted


def main() -> int:
    """0; writes the converted weights. Fails on the first name or shape that does not fit the compact network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pilot", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    converted = convert(load_file(options.pilot))
    network = build_network(COMPACT)
    network.load_state_dict(converted)
    with torch.no_grad():
        total = sum(value.numel() for value in converted.values())
    save_model(options.out, network.state_dict(), COMPACT, {"origin": f"converted from {options.pilot.name}"})
    print(f"{options.out}: {total / 1e6:.2f} million weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
