"""Whether the tests notice faults: mutants of the code that keeps doors, money and secrets."""
