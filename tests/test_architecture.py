"""Who may import whom (DESIGN section 2), read from the source: a planted wrong import fails here, naming file and module."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"xmem_core": ROOT, "xmem_server": ROOT / "server", "xmem_protocol": ROOT / "nuke_plugin"}
FOLDERS |= {"xmem_client": ROOT / "nuke_plugin", "xmem_nuke": ROOT / "nuke_plugin"}
HEAVY = {"torch", "xmem_core", "cv2", "OpenEXR", "PyOpenColorIO", "safetensors"}
QT = {"PySide2", "PySide6"}

# module prefix -> third-party and own packages it may import besides the standard library
ALLOWED = {
    "xmem_protocol": {"msgpack", "xmem_protocol"},
    "xmem_client": {"zmq", "xmem_protocol", "xmem_client"},
    "xmem_nuke": {"xmem_protocol", "xmem_client", "xmem_nuke", "nuke", "nukescripts", "zmq", *QT},
    "xmem_core": {"torch", "numpy", "xmem_core"},
    "xmem_core.kernels": {"torch", "numpy", "numba", "llvmlite", "xmem_core"},
    "xmem_core.weights": {"torch", "safetensors", "xmem_core"},
}
# inside the core: a module may import those that come before it, and its equals never
CORE_ORDER = [
    "errors",
    "kernels",
    "convolution",
    "bottleneck",
    "motion",
    "images",
    "features",
    "blocks",
    "affinity",
    "mattes",
]
CORE_ORDER += ["confidence", "dissimilarity", "keyframes"]
CORE_ORDER += ["rows", "bank", "best_rows", "compact", "network", "carrier", "memory", "engine", "snapshot", "weights"]
NETWORK_PROCESS = ["service", "control", "bulk", "session", "store", "engines", "followers", "connection"]


def module_name(path: Path) -> str:
    for package, folder in FOLDERS.items():
        if path.is_relative_to(folder / package):
            parts = path.relative_to(folder).with_suffix("").parts
            return ".".join(part for part in parts if part != "__init__")
    raise AssertionError(path)


def files_of(package: str) -> list[Path]:
    return sorted((FOLDERS[package] / package).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Give the dotted names of everything a file imports, wherever in it; type-checking blocks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def allowed_for(name: str) -> set[str] | None:
    matching = [prefix for prefix in ALLOWED if name == prefix or name.startswith(prefix + ".")]
    return ALLOWED[max(matching, key=len)] if matching else None


@pytest.mark.parametrize("package", ["xmem_protocol", "xmem_client", "xmem_nuke", "xmem_core"])
def test_when_a_room_imports_then_it_is_on_its_list(package):
    for path in files_of(package):
        name = module_name(path)
        roots = {imported.split(".")[0] for imported in imports_of(path)} - sys.stdlib_module_names
        assert roots <= (allowed_for(name) or set()), f"{path} imports {roots - (allowed_for(name) or set())}"


def test_when_a_core_module_imports_another_then_it_comes_before_it():
    for path in files_of("xmem_core"):
        if path.stem == "__init__":
            continue
        own = module_name(path).split(".")[1]
        for imported in imports_of(path):
            if imported.startswith("xmem_core."):
                other = imported.split(".")[1]
                before = CORE_ORDER.index(other) < CORE_ORDER.index(own)
                assert before or own == other == "kernels", f"{path} imports {imported}"


def test_when_anything_outside_the_worker_imports_then_it_is_neither_torch_nor_the_core():
    for path in files_of("xmem_server"):
        if "worker" in path.parts:
            continue
        roots = {imported.split(".")[0] for imported in imports_of(path)}
        assert not roots & {"torch", "xmem_core", "safetensors"}, f"{path} imports {roots}"
        names = imports_of(path)
        assert not any(name.startswith("xmem_server.worker") for name in names), f"{path} imports the worker"


def reachable_from(start: str) -> dict[str, str]:
    """Give every module reached from one of the server's, and who imports it first."""
    by_name = {module_name(path): path for package in FOLDERS for path in files_of(package)}
    waiting, found = [(start, start)], {}
    while waiting:
        name, importer = waiting.pop()
        known = next((n for n in (name, name.rpartition(".")[0]) if n in by_name), None)
        key = known or name.split(".")[0]
        if key in found:
            continue
        found[key] = importer
        if known:
            waiting += [(imported, known) for imported in imports_of(by_name[known])]
    return found


@pytest.mark.parametrize("module", NETWORK_PROCESS)
def test_when_the_network_process_is_followed_then_nothing_heavy_is_reached(module):
    found = reachable_from(f"xmem_server.{module}")
    reached = {name: found[name] for name in found if name.split(".")[0] in HEAVY}
    assert not reached, f"xmem_server.{module} reaches {reached}"


@pytest.mark.parametrize("module", ["session", "store"])
def test_when_session_and_store_are_followed_then_no_socket_is_reached(module):
    found = reachable_from(f"xmem_server.{module}")
    assert "zmq" not in found, f"xmem_server.{module} reaches zmq through {found.get('zmq')}"


def test_when_the_nuke_side_touches_nuke_or_qt_then_it_is_in_its_own_files():
    may_nuke = {"shot", "rendering", "fingerprints", "roto", "nodes", "actions", "terminal"}
    for path in files_of("xmem_nuke"):
        roots = {imported.split(".")[0] for imported in imports_of(path)}
        assert "nuke" not in roots or path.stem in may_nuke, f"{path} imports nuke"
        assert not roots & QT or path.stem.startswith("panel"), f"{path} imports Qt"


def test_when_files_are_read_as_python_39_then_the_nuke_side_parses():
    for package in ("xmem_protocol", "xmem_client", "xmem_nuke"):
        for path in files_of(package):
            ast.parse(path.read_text(), feature_version=(3, 9))
