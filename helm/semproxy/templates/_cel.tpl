{{/*
semproxy.cel writes a value as a CEL literal. Members of maps and lists are wrapped in dyn(), since CEL's literals are of one type.
Strings are JSON strings, which CEL reads alike; the two words of semproxy.injection become the policy's variables.
*/}}
{{- define "semproxy.cel" -}}
{{- if kindIs "map" . -}}
{ {{- $first := true -}}
{{- range $k, $v := . -}}
{{- if not $first }}, {{ end -}}{{- $first = false -}}
{{ $k | toJson }}: dyn({{ include "semproxy.cel" $v }})
{{- end -}} }
{{- else if kindIs "slice" . -}}
[{{- range $i, $v := . -}}{{- if $i }}, {{ end -}}dyn({{ include "semproxy.cel" $v }}){{- end -}}]
{{- else if kindIs "string" . -}}
{{ toJson . | replace "${ENGINE_PORT}" "\" + variables.enginePort + \"" | replace "${SHM_VOLUME}" "\" + variables.shmVolume + \"" }}
{{- else if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else if kindIs "invalid" . -}}
null
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}
