"""The files of a job: where those of its plan are now, and what the engine leaves in its scratch folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from xmem_protocol import INTERNAL, MatteFile, ServerError
from xmem_server.job_table import JobRecord, Plan
from xmem_server.planning import update_matte_paths, update_paths
from xmem_server.plans import PropagationPlan, WrittenMatte
from xmem_server.store import Store


def complete_plan(store: Store, record: JobRecord) -> Plan:
    """Give the stored plan with paths, finished frames and the newest snapshot as they are now."""
    plan = store.jobs.fetch_plan(record.job)
    plates, keys = update_paths(plan.plates, plan.keys, store.file_path)
    cache = str(store.cache_folder(record.session))
    if isinstance(plan, PropagationPlan):
        store.drop_scratch(record.session, record.job)
        snapshots = store.jobs.fetch_snapshots(record.job, store.snapshot_folder(record.session, record.job))
        return dataclasses.replace(
            plan,
            plates=plates,
            keys=keys,
            before=update_matte_paths(plan.before, store.file_path),
            cache=cache,
            finished=tuple(sorted({frame for frame, _ in store.jobs.fetch_results(record.job)})),
            snapshot=next((str(snapshot.path) for snapshot in snapshots if snapshot.path.exists()), ""),
            scratch=str(store.scratch_folder(record.session, record.job)),
        )
    mattes = update_matte_paths(plan.mattes, store.file_path)
    return dataclasses.replace(plan, plates=plates, keys=keys, cache=cache, mattes=mattes)


def store_matte(store: Store, record: JobRecord, file: WrittenMatte) -> MatteFile:
    """Move a matte that the engine announced into the store. Raises ServerError when it is not what was announced."""
    path = find_scratch_file(store, record, file.path)
    found = path.stat().st_size
    if found != file.nbytes:
        raise ServerError(INTERNAL, f"The engine wrote {path.name} with {found} bytes and announced {file.nbytes}.")
    store.move_file(path, file.sha256)
    return MatteFile(file.object_id, file.sha256, file.nbytes, file.suffix)


def find_scratch_file(store: Store, record: JobRecord, path: str) -> Path:
    """Give a file that the engine announced. Raises ServerError when it is not one of the job's scratch folder."""
    folder = store.scratch_folder(record.session, record.job)
    file = Path(path)
    if not file.is_file() or not file.resolve().is_relative_to(folder):
        raise ServerError(INTERNAL, f"The engine announced {file.name}, which is not a file of its scratch folder.")
    return file
