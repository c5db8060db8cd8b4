"""What items and users are, as vectors: encoders of columns, and the map from content to trained vectors."""
