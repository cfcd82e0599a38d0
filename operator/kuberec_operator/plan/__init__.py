"""Decisions: pure functions from (resource, observed, now) to a `Decision`; no clock, no I/O."""
