"""Who may use the admin API: users with roles, their sessions, tokens, and how one gets in."""
