"""A Qdrant node or cluster, over HTTP or gRPC."""
