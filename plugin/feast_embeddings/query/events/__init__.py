"""What recorded events change: the vectors that answers use now, and the rows that store them."""
