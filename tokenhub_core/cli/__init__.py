"""The `tokenhub` command."""
