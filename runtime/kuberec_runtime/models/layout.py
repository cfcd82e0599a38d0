"""The layout of the network's input; it lives in `kuberec_api`, where the operator checks it without TensorFlow."""

from kuberec_api.layout import LINEAR_GROUP, Layout, NetworkError, Slot, Table, build_layout

__all__ = ["LINEAR_GROUP", "Layout", "NetworkError", "Slot", "Table", "build_layout"]
