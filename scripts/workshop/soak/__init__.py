"""Hundreds of runs on one server: what the soak draws, measures and concludes."""
