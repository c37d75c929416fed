"""Take plans one after another and never die of one of them."""

from __future__ import annotations

import gc
import logging

import torch

from xmem_core.convolution import tile_convolutions
from xmem_core.errors import CoreError
from xmem_core.network import XMem
from xmem_core.weights import LoadedModel, load_model
from xmem_protocol import BAD_INPUT, INTERNAL, OUT_OF_MEMORY, InputError, ServerError
from xmem_server.decoding import Decoder
from xmem_server.headers import DecodeLimits
from xmem_server.plans import (
    EngineCancelled,
    EngineFailed,
    EnginePaused,
    EngineReady,
    EngineRefused,
    PropagationPlan,
    SuggestionPlan,
)
from xmem_server.worker.background import NICENESS
from xmem_server.worker.channel import Channel
from xmem_server.worker.memory_ladder import is_out_of_memory, release_memory
from xmem_server.worker.memory_plan import fetch_memory, settle_size
from xmem_server.worker.propagation import run_propagation
from xmem_server.worker.reporting import JobCancelledError, JobPausedError
from xmem_server.worker.suggestion import run_suggestion

log = logging.getLogger(__name__)
_PATIENCE = 1.0  # seconds: who asks for a suggestion at a job's end need not wait until its memory is given back


def fetch_device(name: str) -> torch.device:
    """Give the device of this name; ``auto`` is the first GPU, or the CPU.

    Raises CoreError for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CoreError(f"Unknown device {name!r}. Give auto, cpu or cuda:N.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CoreError(
            f"Device {name} is not here: torch sees {torch.cuda.device_count()} GPUs. "
            "Give --device cpu, or see `xmem doctor`."
        )
    if device.type not in ("cpu", "cuda"):
        raise CoreError(f"Device {name!r} is not supported. Give auto, cpu or cuda:N.")
    return device


def place_network(network: XMem, device: torch.device) -> None:
    """Put a network on a device, laid out as convolutions are fastest there; the numbers are the same up to rounding."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cpu":
        tile_convolutions(network)


class EngineLoop:
    """One model on one device, working through plans."""

    def __init__(self, channel: Channel, model: str, device: str, memory: int = 0) -> None:
        self._channel = channel
        self._model = model
        self._device = device
        self._memory = memory

    def run(self) -> None:
        """Load the model, then work until the channel closes the process."""
        try:
            device = fetch_device(self._device)
            model = load_model(self._model)
        except CoreError as error:
            self._channel.send(EngineRefused(str(error)))
            return
        log.info("preparing the network; the first time after installing this takes about half a minute")
        place_network(model.network, device)
        gc.freeze()  # what is loaded stays: looking through it for garbage again and again took 3 % of a propagation
        self._memory = fetch_memory(device, self._memory)
        with Decoder(DecodeLimits(niceness=NICENESS)) as decoder:
            decoder.start()
            self._channel.send(EngineReady(str(device), model.name, model.sha256))
            while True:
                plan = self._channel.next_plan(within=_PATIENCE)
                if plan is None:
                    release_memory()  # sessions that do not run hold none
                    plan = self._channel.next_plan()
                if plan is not None:
                    self._work(plan, model, decoder)

    def _work(self, plan: PropagationPlan | SuggestionPlan, model: LoadedModel, decoder: Decoder) -> None:
        log.info("job %s of session %s starts", plan.job, plan.session)
        failure: EngineFailed | EngineCancelled | EnginePaused | None = None
        try:
            config = model.network.config
            if isinstance(plan, PropagationPlan):
                settled = settle_size(plan, config, self._memory)
                log.info("job %s takes %s", plan.job, settled.note)
                run_propagation(settled, model, decoder, self._channel)
            else:
                run_suggestion(settle_size(plan, config, self._memory), model, decoder, self._channel)
        except JobCancelledError:
            failure = EngineCancelled(plan.job)
        except JobPausedError:
            failure = EnginePaused(plan.job)
        except (InputError, CoreError) as error:
            failure = EngineFailed(plan.job, BAD_INPUT, str(error))
        except ServerError as error:
            failure = EngineFailed(plan.job, error.code, str(error))
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            failure = self._explain(plan, error)
        except Exception as error:
            # The engine outlives any one job; the traceback is for the log, the line for the artist.
            log.exception("job %s failed", plan.job)
            failure = EngineFailed(plan.job, INTERNAL, f"The engine failed ({type(error).__name__}); see its log.")
        if failure is not None:
            release_memory()  # it may have been what was short, and another job may come at once
            self._channel.send(failure)
        log.info("job %s ends", plan.job)

    def _explain(self, plan: PropagationPlan | SuggestionPlan, error: BaseException) -> EngineFailed:
        if is_out_of_memory(error):
            return EngineFailed(
                plan.job,
                OUT_OF_MEMORY,
                "There is not enough memory for this shot at this working size. Lower the working size, then run again.",
            )
        log.error("job %s failed", plan.job, exc_info=error)
        return EngineFailed(plan.job, INTERNAL, f"The engine failed ({type(error).__name__}); see its log.")
