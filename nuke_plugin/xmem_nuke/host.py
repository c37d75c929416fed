"""What the controller needs of Nuke, in one place: ``nodes.py`` is it, and tests may stand in for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Protocol

from xmem_protocol import PropagationSettings, SuggestionSettings

if TYPE_CHECKING:
    from xmem_nuke.rendering import RenderedFrame
    from xmem_nuke.shot import Shot

Node = Any  # a Nuke node: only the host looks into it


class NodeGoneError(Exception):
    """The node was deleted, or its script closed, while something was done for it."""


class RenderStoppedError(Exception):
    """The artist pressed Cancel in Nuke's own progress bar; the text says where that was."""


@dataclass(frozen=True)
class NodeSettings:
    """What the node's knobs say besides the shot. ``connection_file`` tells where the server is, ``playhead`` what the artist looks at."""

    propagation: PropagationSettings
    suggestion: SuggestionSettings
    connection_file: Path
    playhead: int


class Host(Protocol):
    """Nuke as the controller sees it. All but ``post`` belong to the main thread; all that take a node raise NodeGoneError."""

    def post(self, call: Callable[[], None]) -> None:
        """Run a function on the main thread soon; returns at once. May be called from any thread."""

    def is_interactive(self) -> bool:
        """Whether Nuke has an event loop; without one, whoever starts something calls ``tick`` until it is done."""

    def fetch_session(self, node: Node) -> str:
        """Give the node's session."""

    def fetch_shot(self, node: Node) -> Shot:
        """Give the node's shot. Raises InputError in the artist's words."""

    def fetch_settings(self, node: Node, shot: Shot) -> NodeSettings:
        """Give what the node's knobs say. Raises InputError."""

    def fetch_connection_file(self, node: Node) -> Path:
        """Give where the node's server says it is."""

    def fetch_fingerprint(self, node: Node, shot: Shot, kind: str, frame: int) -> str:
        """Give what a frame's pixels are known by before it is rendered; empty when that cannot be known."""

    def render_frames(self, node: Node, shot: Shot, wanted: Sequence[tuple[str, int]]) -> Iterator[RenderedFrame]:
        """Give the frames, one rendered at each step. Raises RenderStoppedError, and InputError for what cannot be."""

    def fetch_keyed(self, node: Node) -> tuple[int, ...]:
        """Give the frames marked on the node as sent."""

    def fetch_suggested(self, node: Node) -> tuple[int, ...]:
        """Give the frames marked on the node as suggested."""

    def write_suggested(self, node: Node, frames: Sequence[int]) -> None:
        """Mark frames as suggested, as one undo step."""

    def write_keyed(self, node: Node, frames: Sequence[int]) -> None:
        """Mark the frames whose keys were sent, as one undo step."""

    def write_status(self, node: Node, text: str) -> None:
        """Show a line of text on the node."""

    def show_mattes(self, node: Node, shot: Shot) -> None:
        """Point the node at its mattes and have it read them again."""
