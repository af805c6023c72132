"""The nodes: a schema each, and a few lines that call sun_core."""
