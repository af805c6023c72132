"""SUN against its peers and its own parts, measured on the mini family."""
