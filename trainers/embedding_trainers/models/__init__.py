"""The trainers that come with the project: als, bpr, concat, graph, softmax and svd."""
