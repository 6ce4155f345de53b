"""Everything that is told about exchanges: records, metrics, events, logs."""
