"""The three resources of KubeRec as types: RecModel, RecTraining, RecServing."""

from kuberec_api.meta import API_VERSION, GROUP, VERSION
from kuberec_api.model import RecModel
from kuberec_api.serving import RecServing
from kuberec_api.training import RecTraining

__all__ = ["API_VERSION", "GROUP", "VERSION", "RecModel", "RecServing", "RecTraining"]
