"""From a plan's settings, which travel, to the core's."""

from __future__ import annotations

import torch

from xmem_core.errors import CoreError
from xmem_core.images import even_shape, working_shape
from xmem_core.memory import MemoryPolicy
from xmem_core.network import NetworkConfig
from xmem_core.weights import LoadedModel
from xmem_protocol import InputError, PropagationSettings
from xmem_server.decoding import Decoder
from xmem_server.plans import PropagationPlan, SuggestionPlan
from xmem_server.worker.features import Encoding

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def fetch_policy(settings: PropagationSettings) -> MemoryPolicy:
    """Give the memory policy of a propagation. Raises CoreError for values that do not go together."""
    return MemoryPolicy(
        permanent=settings.permanent,
        long_term=settings.long_term,
        mem_every=settings.mem_every,
        deep_update_every=settings.deep_update_every,
        top_k=settings.top_k,
        max_working_frames=settings.max_working_frames,
        min_working_frames=settings.min_working_frames,
        prototypes=settings.prototypes,
        max_long_term=settings.max_long_term,
    )


def fetch_precision(settings: PropagationSettings) -> torch.dtype:
    """Give the precision of the convolutions. Raises CoreError for one that does not exist."""
    if settings.precision not in PRECISIONS:
        raise CoreError(f"Precision must be one of {', '.join(PRECISIONS)}; got {settings.precision!r}.")
    return PRECISIONS[settings.precision]


def fetch_encoding(
    plan: PropagationPlan | SuggestionPlan, settings: PropagationSettings, model: LoadedModel, decoder: Decoder
) -> Encoding:
    """Give how the plan's plates become features of this model.

    Raises InputError when the colour configuration is not the one the job was started with.
    """
    shot = plan.shot
    colour_id = decoder.fetch_colour_id(shot.colorspace)
    if plan.colour_id not in ("", colour_id):
        raise InputError("The colour configuration changed after this was started. Start it again.")
    config: NetworkConfig = model.network.config
    size = fetch_working_size(settings, config)
    shape = working_shape(shot.height, shot.width, size)
    working = shape
    if model.network.follows_motion:  # its mattes may be finer than what it sees
        shape = even_shape(*working_shape(shot.height, shot.width, max(size, config.matte_size)))
        working = working_shape(*shape, size)
    return Encoding(shot.colorspace, colour_id, shape, working, f"{model.sha256} {settings.precision}")


def fetch_working_size(settings: PropagationSettings, config: NetworkConfig) -> int:
    """Give the shorter side that the network sees: as asked for, else the model's own."""
    return settings.working_size or config.working_size
