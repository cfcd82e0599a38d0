"""Ranking replicas: follow a training's publications in the tier and score candidates over HTTP."""
