"""Trainers that make a user of the order of their items."""

from embedding_trainers.models.sequential.sasrec import SASREC, SASRecConfig, fold_in_sasrec, train_sasrec

__all__ = ["SASREC", "SASRecConfig", "fold_in_sasrec", "train_sasrec"]
