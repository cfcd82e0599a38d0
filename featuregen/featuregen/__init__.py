"""One definition of features for training and for serving: the same plan, the same kernels, the same bits."""
