{{- define "kuberec.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- define "kuberec.account" -}}
{{- .Values.serviceAccount.name | default (include "kuberec.name" .) -}}
{{- end -}}
{{- define "kuberec.selector" -}}
app.kubernetes.io/name: kuberec
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- define "kuberec.labels" -}}
{{ include "kuberec.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
{{/* What the operator may do where it watches. Every verb is one that operator/kuberec_operator/cluster.py or Kopf uses. */}}
{{- define "kuberec.rules" -}}
- apiGroups: [kuberec.dev]
  resources: [recmodels, rectrainings, recservings]
  verbs: [get, list, watch]
- apiGroups: [kuberec.dev]
  resources: [recmodels/status, rectrainings/status, recservings/status]
  verbs: [get, patch]
# For `blockOwnerDeletion` in the owner references of children.
- apiGroups: [kuberec.dev]
  resources: [recmodels/finalizers, rectrainings/finalizers, recservings/finalizers]
  verbs: [update]
- apiGroups: [ray.io]
  resources: [rayjobs, rayservices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, serviceaccounts]
  verbs: [list, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [list, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
