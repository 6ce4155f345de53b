"""Who changed what, from where, and what it was before: a chain of entries that shows when it was tampered with."""
