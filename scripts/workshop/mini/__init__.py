"""The mini family: how its weights are made."""
