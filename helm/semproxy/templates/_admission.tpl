{{/* What both admission policies share. Expressions are CEL over a pod. */}}
{{- define "semproxy.podMatch" -}}
objectSelector:
  matchExpressions:
    - key: semproxy.io/inject
      operator: In
      values: ["true", {{ include "semproxy.fullname" . | quote }}]
resourceRules:
  - apiGroups: [""]
    apiVersions: ["v1"]
    operations: ["CREATE"]
    resources: ["pods"]
{{- end -}}

{{- define "semproxy.namespaceMatch" -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values: {{ (include "semproxy.namespaces" . | fromYaml).list | toJson }}
{{- end -}}

{{- define "semproxy.engineName" -}}
{{- include "semproxy.annotation" (dict "name" "semproxy.io/engine-container" "default" (ternary (toJson .Values.engine.container) "object.spec.containers[0].name" (ne .Values.engine.container ""))) -}}
{{- end -}}

{{- define "semproxy.enginePort" -}}
{{- include "semproxy.annotation" (dict "name" "semproxy.io/engine-port" "default" (.Values.engine.port | int | toString | toJson)) -}}
{{- end -}}

{{- define "semproxy.annotation" -}}
(has(object.metadata.annotations) && "{{ .name }}" in object.metadata.annotations ? object.metadata.annotations["{{ .name }}"] : {{ .default }})
{{- end -}}
