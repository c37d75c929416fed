"""The questions that ``nuke_smoke.py`` asks a real Nuke."""
