"""A registered model: its feature views, and where its users and items are stored."""
