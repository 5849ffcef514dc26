"""State spaces: geometry, and the calculus that generators need."""
