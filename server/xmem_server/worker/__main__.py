"""Run an engine, check a checkpoint, or say what this machine's torch can do."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys

import torch

from xmem_core.errors import CoreError
from xmem_core.weights import load_model
from xmem_server.worker.channel import open_channel
from xmem_server.worker.engine_loop import EngineLoop, fetch_device


def main(arguments: list[str] | None = None) -> int:
    """Give the exit code; an engine runs until its stdin closes."""
    parser = argparse.ArgumentParser(prog="xmem_server.worker", description=__doc__)
    parser.add_argument("--model", default="compact", help="'compact' or the path of a checkpoint")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument(
        "--memory", type=int, default=0, help="bytes that jobs may take; 0: four fifths of what there is"
    )
    parser.add_argument("--check", metavar="FILE", help="load a checkpoint, say what it is, and leave")
    parser.add_argument("--doctor", action="store_true", help="print what torch is and sees, as JSON, and leave")
    options = parser.parse_args(arguments)
    if options.doctor:
        sys.stdout.write(json.dumps(describe_torch()) + "\n")
        return 0
    if options.check:
        return _check(options.check)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s engine %(message)s")
    EngineLoop(open_channel(), options.model, options.device, options.memory).run()
    return 0


def _check(path: str) -> int:
    try:
        model = load_model(path)
    except CoreError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    config = model.network.config
    sys.stdout.write(
        f"{model.name}: {config.architecture}, {parameters / 1e6:.1f} million parameters, "
        f"keys {config.key_dim}, values {config.value_dim}, sensory {config.hidden_dim}, sha256 {model.sha256}\n"
    )
    return 0


def describe_torch() -> dict[str, object]:
    """Give version, CUDA build, devices and threads of this machine's torch; plain JSON values."""
    devices = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {
        "torch": torch.__version__,
        "cuda_build": torch.version.cuda or "",
        "cuda_devices": devices,
        "chosen_device": str(fetch_device("auto")),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
    }


if __name__ == "__main__":
    sys.exit(main())
