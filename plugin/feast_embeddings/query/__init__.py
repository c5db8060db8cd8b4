"""Questions to what is live: neighbours, ranks, audiences, vectors by id, visitors."""
