"""Commands that look at the live vectors."""
