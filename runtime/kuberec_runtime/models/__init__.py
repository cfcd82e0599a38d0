"""The network and how embeddings reach it: layout of its input, pooling kernels, the Keras model."""
