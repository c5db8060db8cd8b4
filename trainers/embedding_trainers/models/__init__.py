"""The trainers that come with the project: als, bpr, softmax and svd."""
