"""The Debian packages the training images come from, each with its licence. Every one of them is named in the model card."""

from __future__ import annotations

from dataclasses import dataclass

# What a licence asks of works made from the images. Whether a trained network is such a work is not settled, so both
# kinds that ask for something can be left out.
PERMISSIVE, COPYLEFT, SHARE_ALIKE = "permissive", "copyleft", "share-alike"


@dataclass(frozen=True)
class Source:
    """One Debian package: what it is used for, under which licence, and which of its files count.

    ``role`` is what its opaque images are: ``photo`` (real photographs), ``texture`` (game surfaces, drawings) or
    ``none``. ``has_cutouts`` says whether its images with transparency become cutouts. ``kept`` and ``dropped`` are
    path fragments: a file needs one of ``kept`` (when there are any) and none of ``dropped``. ``licence`` is what the
    package's own copyright file says; ``terms`` the most demanding of it.
    """

    package: str
    licence: str
    terms: str
    role: str
    has_cutouts: bool = False
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


# Small ones first: a fetch that is cut short still gives a usable set.
SOURCES = (
    Source("plasma-workspace-wallpapers", "GPL-2+", COPYLEFT, "photo"),
    Source("mate-backgrounds", "GPL-2+, two CC-BY-SA-4.0", SHARE_ALIKE, "photo", dropped=("/desktop/",)),
    Source("gnome-backgrounds", "CC-BY-SA-3.0, CC-BY-SA-2.0, CC-BY-2.0", SHARE_ALIKE, "photo"),
    Source("ukui-wallpapers", "CC-BY-SA-3.0", SHARE_ALIKE, "photo"),
    Source("lomiri-wallpapers-16.04", "CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0, CC0", SHARE_ALIKE, "photo"),
    Source("lomiri-wallpapers-20.04", "CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0, CC0", SHARE_ALIKE, "photo"),
    Source("python3-skimage", "BSD-3-Clause", PERMISSIVE, "photo"),
    Source("stellarium-data", "GPL-2+", COPYLEFT, "photo", kept=("/landscapes/",)),
    Source("tuxpaint-stamps-default", "GPL-2, many public domain", COPYLEFT, "texture", has_cutouts=True),
    Source("openclipart-png", "public domain dedication", PERMISSIVE, "none", has_cutouts=True),
    Source(
        "supertuxkart-data",
        "CC-BY-SA-3.0, CC-BY-SA-4.0, CC-BY-3.0, CC0, GPL, public domain",
        SHARE_ALIKE,
        "texture",
        has_cutouts=True,
    ),
    Source(
        "0ad-data",
        "CC-BY-SA-3.0",
        SHARE_ALIKE,
        "texture",
        kept=(
            "art/textures/terrain/types",
            "art/textures/skins/structural",
            "art/textures/skins/gaia",
            "art/textures/skins/props",
            "art/textures/skins/skeletal",
            "art/textures/ui/loading",
            "art/textures/ui/pregame",
        ),
        dropped=("norm", "spec", "_ao", "ao_", "mask", "parallax"),
    ),
)


def packages_with(terms: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the packages whose licence has one of these terms."""
    return tuple(source.package for source in SOURCES if source.terms in terms)
