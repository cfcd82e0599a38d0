"""What Kopf calls: decorators, and one line that wakes the object concerned. No decision is made here.

Only `on.event` is used: it fires for every change and every restart, adds no finalizer and no annotation, and carries
no state of its own; what to do is decided from the present state of things, whatever event was missed.
"""

import kopf

from kuberec_api.meta import GROUP, VERSION
from kuberec_operator.changes import Seen, owner_of
from kuberec_operator.health import Progress
from kuberec_operator.kinds import LABEL_SERVING, LABEL_TRAINING
from kuberec_operator.work_queue import WorkQueue


class Wakes:
    """What a handler needs: where to put the key, what was seen already, and the record that the watch is alive."""

    def __init__(self, queue: WorkQueue, progress: Progress) -> None:
        self.queue, self.progress, self.seen = queue, progress, Seen()

    def take(self, body: kopf.Body, gone: bool) -> None:
        """Wakes the object that a watched one is or belongs to, if something relevant has changed."""
        self.progress.saw(body)
        key = owner_of(body)
        if key is not None and self.seen.news(body, gone):
            self.queue.add(key)


@kopf.on.login()
def login(**kwargs: object) -> kopf.ConnectionInfo | None:
    """As the pod's ServiceAccount, else as KUBECONFIG says."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)  # type: ignore[arg-type]


@kopf.on.event(GROUP, VERSION, "recmodels")
@kopf.on.event(GROUP, VERSION, "rectrainings")
@kopf.on.event(GROUP, VERSION, "recservings")
@kopf.on.event("ray.io", "v1", "rayjobs", labels={LABEL_TRAINING: kopf.PRESENT})
@kopf.on.event("ray.io", "v1", "rayservices", labels={LABEL_SERVING: kopf.PRESENT})
@kopf.on.event("", "v1", "pods", labels={LABEL_TRAINING: kopf.PRESENT})
async def wake(memo: kopf.Memo, body: kopf.Body, type: str | None, **_: object) -> None:
    """Every watched change, through one door."""
    memo.wakes.take(body, gone=type == "DELETED")
