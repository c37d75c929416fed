import numpy as np
import pytest

pytest.importorskip("PIL", reason="packing reads the packages' DDS files with Pillow, a developer tool")

from PIL import Image

from training.bank import ProceduralBank, fetch_bank
from training.packages import COPYLEFT, PERMISSIVE, SHARE_ALIKE, SOURCES, packages_with
from training.packing import Candidate, pack
from training.sources import is_wanted


def test_when_pictures_are_packed_then_the_bank_gives_them_back(tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        pixels = ProceduralBank().cutout(rng) if number % 2 else ProceduralBank().surface(rng)
        Image.fromarray(pixels).save(path)
        files.append(Candidate(path, "", "made-here", "photo", has_cutouts=True))
    counts = pack(files, tmp_path / "packed", "made-here", processes=1)
    bank = fetch_bank(tmp_path / "packed")
    assert counts["photo"] > 10
    assert counts["cutout"] > 10
    assert bank.surface(rng).shape[2] == 3
    assert bank.cutout(rng).shape[2] == 4
    with pytest.raises(FileNotFoundError):
        fetch_bank(tmp_path / "packed", left_out=("made-here",))


def test_when_a_package_drops_maps_and_keeps_folders_then_only_colour_images_count():
    game = next(source for source in SOURCES if source.package == "0ad-data")
    assert is_wanted(game, "art/textures/terrain/types/desert/sand.dds")
    assert not is_wanted(game, "art/textures/terrain/types/desert/sand_norm.dds")
    assert not is_wanted(game, "art/textures/particles/smoke.dds")
    assert not is_wanted(game, "art/textures/terrain/types/readme.txt")


def test_when_demanding_licences_are_left_out_then_photographs_and_cutouts_remain():
    gone = packages_with((SHARE_ALIKE, COPYLEFT))
    rest = [source for source in SOURCES if source.package not in gone]
    assert all(source.terms == PERMISSIVE for source in rest)
    assert any(source.role == "photo" for source in rest)
    assert any(source.has_cutouts for source in rest)
