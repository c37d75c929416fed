"""The state of a propagation as plain tensors, so that an interrupted run goes on where it stopped, bit for bit.

Permanent memory is not in it: it follows from the annotations. Names: ``working.3.value.1`` is object 1's values of the
fourth block of working memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from xmem_core.bank import Bank
from xmem_core.engine import Propagation, lay_hidden
from xmem_core.errors import CoreError
from xmem_core.rows import Rows

FORMAT = 2


def take_snapshot(propagation: Propagation) -> dict[str, Tensor]:
    """Give the state between two steps; contiguous tensors, safe to write while the propagation goes on."""
    state = {
        "clock": torch.tensor([FORMAT, propagation.position, propagation.last_memory, propagation.last_deep]),
        "skipped": torch.tensor(propagation.skipped, dtype=torch.int64),
        **{f"hidden.{object_id}": hidden for object_id, hidden in propagation.hidden.items()},
        **{f"previous.{object_id}": mask for object_id, mask in propagation.carrier.previous.items()},
        **_bank_state("working", propagation.memory.working),
        **_bank_state("long_term", propagation.memory.long_term),
    }
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def restore_snapshot(propagation: Propagation, state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put a freshly started propagation into a state that `take_snapshot` gave.

    Raises CoreError when the state was written in another format.
    """
    written, position, last_memory, last_deep = (int(value) for value in state["clock"])
    if written != FORMAT:
        raise CoreError(f"The snapshot has format {written}, this version reads {FORMAT}. Run the shot from its start.")
    propagation.position, propagation.last_memory, propagation.last_deep = position, last_memory, last_deep
    propagation.skipped = state["skipped"].tolist()
    propagation.hidden = {o: lay_hidden(value.to(device)) for o, value in _by_object("hidden.", state).items()}
    propagation.carrier.previous = {o: value.to(device) for o, value in _by_object("previous.", state).items()}
    where = propagation.engine.rows_device
    for name, bank in (("working", propagation.memory.working), ("long_term", propagation.memory.long_term)):
        own = {key: value.to(where) for key, value in state.items() if key.startswith(f"{name}.")}
        _restore_bank(bank, name, own)


def _bank_state(name: str, bank: Bank) -> dict[str, Tensor]:
    if not bank.frames:
        return {}
    use, life = bank.counters()
    state = {f"{name}.frames": torch.tensor(bank.frames), f"{name}.use": use, f"{name}.life": life}
    for place, rows in enumerate(bank.blocks):
        block = f"{name}.{place}"
        state |= {f"{block}.key": rows.key, f"{block}.shrinkage": rows.shrinkage, f"{block}.selection": rows.selection}
        state |= {f"{block}.value.{object_id}": value for object_id, value in rows.values.items()}
        state |= {f"{block}.given.{object_id}": given for object_id, given in rows.given.items()}
    return state


def _restore_bank(bank: Bank, name: str, state: Mapping[str, Tensor]) -> None:
    if f"{name}.frames" not in state:
        return
    for place, frame in enumerate(state[f"{name}.frames"].tolist()):
        block = f"{name}.{place}"
        bank.append(
            frame,
            Rows(
                state[f"{block}.key"],
                state[f"{block}.shrinkage"],
                state[f"{block}.selection"],
                _by_object(f"{block}.value.", state),
                _by_object(f"{block}.given.", state),
            ),
        )
    bank.restore_counters(state[f"{name}.use"], state[f"{name}.life"])


def _by_object(prefix: str, state: Mapping[str, Tensor]) -> dict[int, Tensor]:
    return {int(name[len(prefix) :]): value for name, value in state.items() if name.startswith(prefix)}
