"""XMem++: video object segmentation with a permanent memory, and the suggestion of the next frame to annotate.

Tensors only: no image files, no sockets, no Nuke. Written from the paper (Bekuzarov et al., "XMem++: Production-level
Video Segmentation From Few Annotated Frames", ICCV 2023) and XMem's published description.
"""
