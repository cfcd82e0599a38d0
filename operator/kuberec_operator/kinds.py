"""The resources that the operator reads or writes, and the names and labels by which it knows its own."""

from dataclasses import dataclass

from kuberec_api.meta import API_VERSION

FIELD_MANAGER = "kuberec"
LABEL_TRAINING = "kuberec.dev/training"
LABEL_SERVING = "kuberec.dev/serving"
LABEL_ATTEMPT = "kuberec.dev/attempt"
LABEL_NODE = "ray.io/node-type"
HASH = "kuberec.dev/hash"
INPUT_HASH = "kuberec.dev/input-hash"


@dataclass(frozen=True)
class Kind:
    """A kind of the Kubernetes API."""

    api_version: str
    name: str
    plural: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Returns the URL path of the collection, an object, or an object's subresource; namespace '' means all."""
        group = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        parts = [group + scope, self.plural, *([name] if name else []), *([subresource] if subresource else [])]
        return "/".join(parts)


MODEL = Kind(API_VERSION, "RecModel", "recmodels")
TRAINING = Kind(API_VERSION, "RecTraining", "rectrainings")
SERVING = Kind(API_VERSION, "RecServing", "recservings")
RAYJOB = Kind("ray.io/v1", "RayJob", "rayjobs")
RAYSERVICE = Kind("ray.io/v1", "RayService", "rayservices")
POD = Kind("v1", "Pod", "pods")
CONFIGMAP = Kind("v1", "ConfigMap", "configmaps")
SERVICEACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
EVENT = Kind("v1", "Event", "events")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLEBINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")

OWN = (MODEL, TRAINING, SERVING)
CHILDREN = {k.name: k for k in (RAYJOB, RAYSERVICE, CONFIGMAP, SERVICEACCOUNT, ROLE, ROLEBINDING)}


@dataclass(frozen=True, order=True)
class Key:
    """Identity of one of our objects in the queue."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name} in {self.namespace}"
