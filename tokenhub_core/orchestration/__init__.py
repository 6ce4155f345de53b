"""Several calls that make one answer: planning, adversarial, vote, refine."""
