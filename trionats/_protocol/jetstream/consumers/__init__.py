"""Reading through a consumer of the user's own: what it may be, what is asked of it, and what its readers do next."""
