"""Marks every test by the tier (folder) it lives in, so that `pytest -m unit` and `pytest tests/unit` mean the same."""

from pathlib import Path

import pytest
from hypothesis import settings

TIERS = ("unit", "component", "api", "e2e")

# A kernel may compile inside the first example, and machines are shared: time is no verdict.
settings.register_profile("kuberec", deadline=None)
settings.load_profile("kuberec")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    for item in items:
        tier = item.path.relative_to(root).parts[0]
        if tier in TIERS:
            item.add_marker(getattr(pytest.mark, tier))
