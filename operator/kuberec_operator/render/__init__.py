"""Children as data: pure functions from our resources to manifests, compared with goldens in the tests."""
