"""The Nuke side of XMem++: reads a node into values, runs jobs beside Nuke, writes results back into the script."""
