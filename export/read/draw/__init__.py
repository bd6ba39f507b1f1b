"""Pictures of a file: its graph, and any weight code by code."""
