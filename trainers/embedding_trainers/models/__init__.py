"""The trainers that come with the project: als, bpr, concat, item2vec, softmax and svd."""
