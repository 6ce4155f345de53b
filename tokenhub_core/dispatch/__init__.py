"""Getting one call answered: the failover machine, its rules, and the shell that runs it."""
