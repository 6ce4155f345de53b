"""Which model and provider should serve a call, and why."""
