"""Distilling a SUN adapter. Imports sun_core; nothing in sun_core imports this."""
