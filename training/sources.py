"""Fetch the training images as Debian packages, filter them and pack them into one file with an index.

    python -m training.sources                                   every package, about 2.7 GB to download
    python -m training.sources --without share-alike copyleft    public domain and permissive licences alone

Everything lands below ``training/downloads`` (ignored by git): ``deb/`` the packages as fetched, ``unpacked/`` their
files with each package's copyright file, ``packed/`` the result that ``training.bank`` reads, one pair of
files a package. What is already there is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

from training.packages import COPYLEFT, SHARE_ALIKE, SOURCES, Source
from training.packing import Candidate, pack

DOWNLOADS = Path(__file__).parent / "downloads"


EVERYWHERE_DROPPED = ("thumb", "screenshot", "normal", "_nm.", "skycultures", "nebulae")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".dds")


def fetch_package(source: Source, folder: Path) -> Path:
    """The package file, downloaded by apt unless it is already there. Raises CalledProcessError when apt cannot."""
    found = sorted(folder.glob(f"{source.package}_*.deb"))
    if found:
        return found[-1]
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", source.package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob(f"{source.package}_*.deb"))[-1]


def unpack_package(archive: Path, folder: Path) -> Path:
    """The folder holding the package's files; unpacked once, complete or absent."""
    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "-x", str(archive), str(partial)], check=True)
        partial.rename(folder)
    return folder


def is_wanted(source: Source, name: str) -> bool:
    """True for the name of an image file this source uses (names are compared in lower case)."""
    lower = name.lower()
    if not lower.endswith(SUFFIXES) or any(word in lower for word in (*EVERYWHERE_DROPPED, *source.dropped)):
        return False
    return not source.kept or any(word in lower for word in source.kept)


def fetch_candidates(source: Source, folder: Path) -> list[Candidate]:
    """Every image of one unpacked package, zip members included, in a fixed order."""

    def candidate(path: Path, member: str) -> Candidate:
        return Candidate(path, member, source.package, source.role, source.has_cutouts)

    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                found += [candidate(path, name) for name in sorted(archive.namelist()) if is_wanted(source, name)]
        elif is_wanted(source, str(path)):
            found.append(candidate(path, ""))
    return found


def main() -> int:
    """0 when at least one package was packed; a package that cannot be fetched is named and left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", nargs="*", default=[], choices=(COPYLEFT, SHARE_ALIKE), help="terms to leave out")
    parser.add_argument("--processes", type=int, default=1, help="processes that decode and filter")
    parser.add_argument("--downloads", type=Path, default=DOWNLOADS)
    options = parser.parse_args()
    total = 0
    for source in SOURCES:
        if source.terms in options.without:
            continue
        try:
            counts = pack_source(source, options.downloads, options.processes)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            print(f"left out {source.package}: {error}", file=sys.stderr)
            continue
        print(source.package, dict(counts), flush=True)
        total += sum(counts.values())
    return 0 if total else 1


def pack_source(source: Source, downloads: Path, processes: int) -> Counter[str]:
    """How many images of each kind the package gives; fetched, unpacked and packed unless that is already done."""
    packed = downloads / "packed"
    index = packed / f"{source.package}.json"
    if index.exists():
        return Counter(entry["kind"] for entry in json.loads(index.read_text()))
    archive = fetch_package(source, downloads / "deb")
    folder = unpack_package(archive, downloads / "unpacked" / source.package)
    return pack(fetch_candidates(source, folder), packed, source.package, processes)


if __name__ == "__main__":
    sys.exit(main())
