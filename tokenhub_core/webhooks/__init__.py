"""Who is told of events over HTTP."""
