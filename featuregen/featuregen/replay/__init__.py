"""The proof that what was served is what is trained on: a log of requests, digests of outputs, and their replay."""
