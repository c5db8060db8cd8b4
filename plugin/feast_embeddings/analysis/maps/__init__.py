"""Users or items in the plane: where they lie, what colours them, the page, and what is kept with a version."""
