"""Where credentials rest: sealed on disk, read at use, bound to their names."""
