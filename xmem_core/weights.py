"""Networks with weights: the shipped compact model, this project's checkpoints, the published XMem checkpoints.

No pickle is ever executed: ``.safetensors`` by safetensors, ``.pth`` by torch with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xmem_core.errors import CoreError
from xmem_core.network import COMPACT, NetworkConfig, XMem, build_network

COMPACT_NAME = "compact"
COMPACT_PATH = Path(__file__).parent / "models" / "compact.safetensors"
CONFIG_FIELD = "xmem_config"  # in a safetensors file's metadata


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode (float32, on the CPU), its name, and the SHA-256 of the file it came from."""

    network: XMem
    name: str
    sha256: str


def load_model(source: str) -> LoadedModel:
    """Give the model for ``compact`` (the shipped one) or for the path of a checkpoint.

    Raises CoreError when the file is missing, is not a checkpoint, or does not fit: the first missing and the first
    unexpected key are named.
    """
    path = COMPACT_PATH if source == COMPACT_NAME else Path(source)
    if not path.is_file():
        raise CoreError(f"There is no checkpoint at {path}. Give 'compact' or the path of a .pth or .safetensors file.")
    state, config = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    network = build_network(config)
    _check_fit(state, network.state_dict(), path)
    network.load_state_dict(state)
    for parameter in network.parameters():
        parameter.requires_grad = False
    name = COMPACT_NAME if source == COMPACT_NAME else path.stem
    return LoadedModel(network.eval(), name, _hash_file(path))


def save_model(path: Path, state: Mapping[str, Tensor], config: NetworkConfig, notes: Mapping[str, str]) -> None:
    """Write weights as half floats in a safetensors file that names its configuration.

    ``notes`` are kept beside it in the metadata (where the weights come from, licence, steps).
    """
    halves = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(halves, path, metadata={CONFIG_FIELD: json.dumps(vars(config)), **notes})


def _hash_file(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1024 * 1024):
            digest.update(piece)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], NetworkConfig]:
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            state = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CoreError(
            f"{path.name} is not a readable safetensors file ({error}). Fetch or export it again."
        ) from None
    if CONFIG_FIELD not in metadata:
        return _as_published(state, path)
    fields = json.loads(metadata[CONFIG_FIELD])
    known = {name: value for name, value in fields.items() if name in NetworkConfig.__dataclass_fields__}
    for name in ("mean", "std"):
        known[name] = tuple(known[name])
    return state, replace(COMPACT, **known)


def _read_pth(path: Path) -> tuple[dict[str, Tensor], NetworkConfig]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own text advises to load with code allowed: never pass it on
        raise CoreError(
            f"{path.name} is not a plain table of weights, and nothing in it was run. Fetch XMem.pth again."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CoreError(f"{path.name} is broken or cut short ({type(error).__name__}). Fetch it again.") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CoreError(f"{path.name} holds no plain table of weights. Give the published XMem.pth or XMem-s012.pth.")
    return _as_published(state, path)


def _as_published(state: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], NetworkConfig]:
    """Give a published checkpoint's weights and the sizes that its shapes tell; a 4-channel value encoder gets its fifth."""
    shapes = {
        "key": ("key_proj.key_proj.weight", 1),
        "value": ("value_encoder.fuser.block2.conv2.weight", 1),
        "hidden": ("decoder.hidden_update.transform.weight", 3),
    }
    sizes = {}
    for what, (key, parts) in shapes.items():
        if key not in state:
            raise CoreError(
                f"{path.name} is not an XMem checkpoint: it has no {key!r}. Give XMem.pth or XMem-s012.pth."
            )
        sizes[what] = state[key].shape[0] // parts
    config = NetworkConfig(key_dim=sizes["key"], value_dim=sizes["value"], hidden_dim=sizes["hidden"])
    first = state.get("value_encoder.conv1.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 4:
        # Trained with one object: RGB and mask only. The "other masks" channel is appended last, silent.
        silent = torch.zeros((first.shape[0], 1, *first.shape[2:]), dtype=first.dtype)
        state = {**state, "value_encoder.conv1.weight": torch.cat([first, silent], 1)}
    return state, config


def _check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    if missing or unexpected:
        parts = [f"lacks {missing[0]!r} ({len(missing)} keys in all)"] if missing else []
        parts += [f"has the unexpected {unexpected[0]!r} ({len(unexpected)} keys in all)"] if unexpected else []
        raise CoreError(f"{path.name} does not fit the network: it {' and '.join(parts)}. Is it the right checkpoint?")
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise CoreError(
                f"{path.name} does not fit the network: {key!r} is {tuple(state[key].shape)}, "
                f"wanted {tuple(value.shape)}. Is it the right checkpoint?"
            )
