{{/* semproxy.fullname names the release's objects; at most 52 characters, so that suffixes fit 63. */}}
{{- define "semproxy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "semproxy.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* semproxy.mode is injection.mode; auto becomes what the cluster can do. */}}
{{- define "semproxy.mode" -}}
{{- if ne .Values.injection.mode "auto" -}}
{{ .Values.injection.mode }}
{{- else if or (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) .Values.injection.beta -}}
admissionPolicy
{{- else -}}
template
{{- end -}}
{{- end -}}

{{/* semproxy.namespaces is where pods get the sidecar, as YAML: {list: [...]}. Configuration and policies are put into each. */}}
{{- define "semproxy.namespaces" -}}
{{- $list := list .Release.Namespace -}}
{{- if and (eq (include "semproxy.mode" .) "admissionPolicy") .Values.injection.namespaces -}}
{{- $list = .Values.injection.namespaces -}}
{{- end -}}
list: {{ $list | uniq | toJson }}
{{- end -}}

{{/* semproxy.podSelector are the labels of the pods that have this release's sidecar. */}}
{{- define "semproxy.podSelector" -}}
semproxy.io/release: {{ include "semproxy.fullname" . }}
{{- end -}}

{{- define "semproxy.configMapName" -}}
{{ include "semproxy.fullname" . }}-config
{{- end -}}

{{- define "semproxy.policyConfigMapName" -}}
{{ default (printf "%s-policy" (include "semproxy.fullname" .)) .Values.policyConfigMap }}
{{- end -}}

{{/* semproxy.clusterName names objects of the cluster: namespace and release tell two of them apart. */}}
{{- define "semproxy.clusterName" -}}
{{ include "semproxy.fullname" . }}.{{ .Release.Namespace }}.semproxy.io
{{- end -}}

{{- define "semproxy.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- if and (ne .Values.gpu.access "none") (not .Values.image.tag) -}}
{{- $tag = printf "%s-gpu" $tag -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{/* semproxy.admissionVersion is the version of MutatingAdmissionPolicy, by the server's version: APIVersions is not known offline. */}}
{{- define "semproxy.admissionVersion" -}}
{{- $v := .Capabilities.KubeVersion.Version -}}
{{- if semverCompare ">=1.36.0-0" $v -}}
v1
{{- else if and (semverCompare ">=1.34.0-0" $v) .Values.injection.beta -}}
v1beta1
{{- else if semverCompare ">=1.34.0-0" $v -}}
{{- fail (printf "\n\ninjection.mode admissionPolicy needs Kubernetes 1.36 or newer; this is %s, where MutatingAdmissionPolicy is beta and off by default.\nEither set injection.mode=template and use `semproxy inject` or the named templates (docs/how-to/kubernetes.md), or, if the API server runs with\n--feature-gates=MutatingAdmissionPolicy=true --runtime-config=admissionregistration.k8s.io/v1beta1=true, set injection.beta=true.\n" $v) -}}
{{- else -}}
{{- fail (printf "\n\ninjection.mode admissionPolicy needs Kubernetes 1.36 or newer; this is %s.\nSet injection.mode=template and use `semproxy inject` or the named templates (docs/how-to/kubernetes.md).\n" $v) -}}
{{- end -}}
{{- end -}}
