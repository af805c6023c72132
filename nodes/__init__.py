"""The nodes: each is a schema and a few lines that call sun_core."""
