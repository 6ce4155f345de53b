"""Which providers can be trusted right now."""
