"""The three resources on one machine without Kubernetes: same types, same entrypoints, a local Ray."""
