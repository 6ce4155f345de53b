"""Calls that go on whatever dies: as workflows of Temporal, with the same machines as the direct path."""
