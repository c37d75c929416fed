"""The mean of several models' weights: runs from one start with different seeds, whose errors partly cancel.

python -m training.average A.safetensors B.safetensors --out MEAN.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from xmem_core.weights import load_model, save_model


def main() -> int:
    """0; writes the mean. Fails on weights that are not of one architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    networks = [load_model(str(path)).network for path in options.weights]
    states = [network.state_dict() for network in networks]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    save_model(options.out, mean, networks[0].config, {"mean of": ", ".join(path.name for path in options.weights)})
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
