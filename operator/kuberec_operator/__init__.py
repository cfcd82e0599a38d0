"""Reconciles RecModel, RecTraining and RecServing into KubeRay children. See ARCHITECTURE.md, section Operator."""
