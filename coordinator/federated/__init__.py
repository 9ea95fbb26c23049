"""Federated jobs on Flower: the signed job, the sums that return, and the processes that carry them."""
