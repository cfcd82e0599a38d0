"""Stable reasons: words that people alert on. A reason is never renamed, only added.

The driver has reasons of its own (`kuberec_runtime.train.exitcode`); they pass through into conditions unchanged.
"""

# Model
COMPILED = "Compiled"
INVALID_FEATURE = "InvalidFeature"
INVALID_NETWORK = "InvalidNetwork"
INVALID_SPEC = "InvalidSpec"

# What something waits for
MODEL_NOT_FOUND = "ModelNotFound"
MODEL_NOT_READY = "ModelNotReady"
TRAINING_NOT_FOUND = "TrainingNotFound"
TRAINING_NOT_PUBLISHING = "TrainingNotPublishing"
INVALID_TRAINING = "InvalidTraining"
INVALID_SERVING = "InvalidServing"
NO_PUBLICATION = "NoPublication"
NO_COMMIT = "NoCommittedEpoch"
KUBERAY_MISSING = "KubeRayMissing"

# Attempts
ATTEMPT_ANNOUNCED = "AttemptAnnounced"
ATTEMPT_STARTING = "AttemptStarting"
ATTEMPT_RUNNING = "AttemptRunning"
HEAD_LOST = "HeadLost"
DRIVER_LOST = "DriverLost"
RAYJOB_DELETED = "RayJobDeleted"
RAYJOB_INVALID = "RayJobInvalid"
SPEC_CHANGED = "SpecChanged"
BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
COMPLETED = "Completed"
SUSPEND_REQUESTED = "SuspendRequested"
SUSPENDED = "Suspended"
SUSPEND_FORCED = "SuspendForced"

# Serving
SERVING = "Serving"
STARTING = "Starting"
UPGRADING = "Upgrading"
SCALED_TO_ZERO = "ScaledToZero"

# For conditions that do not hold
NOT_FINISHED = "NotFinished"
NOT_SUSPENDED = "NotSuspended"
FOLLOWING = "Following"
