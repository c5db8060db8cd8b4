"""Point in time: the vectors that existed when something happened, and what changed between two versions."""
