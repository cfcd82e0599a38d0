"""What runs inside Ray: parameter-server training, publication and serving. See ARCHITECTURE.md, section Runtime."""
