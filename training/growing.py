"""The network a run starts from: weights of this architecture, or of one that had fewer parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from xmem_core.network import COMPACT, XMem, build_network

# Parts that earlier models did not have; they begin as a new network's do.
ADDED = ("decoder.skip8_carried.", "decoder.skip4_carried.", "decoder.refine.")


def load_start(path: Path) -> XMem:
    """The compact network with the weights of a .safetensors file, parts that it lacks left as they begin.

    Raises ValueError, naming the first weight, when the file lacks another part or has one that is unknown.
    """
    return start_from({name: value.float() for name, value in load_file(path).items()}, path.name)


def start_from(state: Mapping[str, Tensor], source: str) -> XMem:
    """The same for weights by name; ``source`` is for the error."""
    network = build_network(COMPACT)
    known = network.state_dict()
    strange = [name for name in state if name not in known]
    lacking = [name for name in known if name not in state and not name.startswith(ADDED)]
    if strange or lacking:
        raise ValueError(f"Wanted weights of a compact network, but {source} differs at {(strange + lacking)[0]!r}.")
    network.load_state_dict({**known, **state})
    return network
