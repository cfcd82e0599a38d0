"""The embedding tier and the feature store: everything that KubeRec keeps in Redis, for writers and readers."""
