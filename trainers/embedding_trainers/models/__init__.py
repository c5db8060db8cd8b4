"""The trainers that come with the project: als, bpr, concat, graph, item2vec, sasrec, softmax and svd."""
