"""Encoders of columns that learn from the column alone."""
