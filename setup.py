"""Install XMem++ for Nuke: the core, the server with its ``xmem`` command, and the wire both sides share."""

from setuptools import find_packages, setup

# Exact: an unpinned torch resolves to whatever CUDA build is newest, and parity was measured with this one.
RUN = [
    "torch==2.13.0",
    "numpy>=2.0,<3",
    "numba>=0.63,<1",
    "llvmlite",
    "safetensors>=0.8,<1",
    "pyzmq>=25,<28",
    "msgpack>=1.0.5,<2",
    "opencv-python-headless>=4.10,<6",
    "OpenEXR>=3.5,<4",
    "opencolorio>=2.5,<3",
    "tqdm>=4.66,<5",
]
TEST = ["pytest>=8,<10", "pytest-timeout>=2,<3", "pillow>=10", "psutil>=6"]

setup(
    install_requires=RUN,
    extras_require={
        "test": TEST,
        "dev": [*TEST, "ruff==0.17.*", "mypy==2.4.*", "types-nuke==13.2.8.0", "PySide6-Essentials>=6.5,<7"],
    },
    package_dir={
        "xmem_core": "xmem_core",
        "xmem_server": "server/xmem_server",
        "xmem_protocol": "nuke_plugin/xmem_protocol",
        "xmem_client": "nuke_plugin/xmem_client",
        # What 'xmem install-nuke' copies: the package, Nuke's own init.py and menu.py, the gizmos.
        "xmem_nuke": "nuke_plugin/xmem_nuke",
        "xmem_server.nuke_start": "nuke_plugin",
        "xmem_server.gizmos": "gizmos",
    },
    packages=[
        "xmem_core",
        "xmem_core.kernels",
        *find_packages("server"),
        *find_packages("nuke_plugin", include=["xmem_protocol", "xmem_client", "xmem_nuke"]),
        "xmem_server.nuke_start",
        "xmem_server.gizmos",
    ],
    package_data={"xmem_core": ["models/*.safetensors"], "xmem_server.gizmos": ["*.gizmo"]},
    entry_points={"console_scripts": ["xmem = xmem_server.__main__:main"]},
)
