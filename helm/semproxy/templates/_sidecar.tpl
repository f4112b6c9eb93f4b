{{/*
semproxy.injection is all that a pod is given, as one document. The admission policy, the named templates below, the demo's
Deployment and `semproxy inject` are all made of it. Two words in it are replaced per pod: ${ENGINE_PORT}, the port on which the
engine listens, and ${SHM_VOLUME}, the volume that is the engine's /dev/shm.
*/}}
{{- define "semproxy.injection" -}}
{{- include "semproxy.ports" . -}}
apiVersion: semproxy.io/v1
kind: Injection
release: {{ include "semproxy.fullname" . }}
# A pod asks for the sidecar by the label semproxy.io/inject with one of these values.
optIn: ["true", {{ include "semproxy.fullname" . | quote }}]
engine:
  # Name of the engine's container where the pod has no annotation semproxy.io/engine-container; empty: the first.
  container: {{ .Values.engine.container | quote }}
  # Port of the engine where the pod has no annotation semproxy.io/engine-port.
  port: {{ .Values.engine.port | int }}
  # What the engine's container is given.
  volumeMounts:
    {{- if .Values.sharedMemory.enabled }}
    - name: semproxy-run
      mountPath: /run/semproxy
    {{- else }} []
    {{- end }}
{{- if .Values.sharedMemory.enabled }}
# Mounted at the engine's /dev/shm when it has none.
sharedMemory:
  name: semproxy-shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.sharedMemory.sizeLimit }}
{{- end }}
# Ports of the sidecar, which the engine cannot have.
ports: [{{ if .Values.proxy.enabled }}{{ .Values.proxy.port | int }}, {{ end }}{{ .Values.admin.port | int }}{{ if .Values.planes.split }}, {{ .Values.planes.adminPort | int }}{{ end }}]
{{- if eq .Values.gpu.access "dra" }}
# The pod's entry of resourceClaims that engine and sidecar share.
resourceClaim: {{ .Values.gpu.dra.claim }}
{{- end }}
sidecar:
  {{- include "semproxy.container" (dict "top" . "planes" (ternary "requests" "both" .Values.planes.split)) | nindent 2 }}
{{- if .Values.planes.split }}
# The page plane in a container of its own.
pagePlane:
  {{- include "semproxy.container" (dict "top" . "planes" "pages") | nindent 2 }}
{{- end }}
volumes:
  - name: semproxy-config
    configMap:
      name: {{ include "semproxy.configMapName" . }}
  - name: semproxy-policy
    configMap:
      name: {{ include "semproxy.policyConfigMapName" . }}
  {{- if .Values.sharedMemory.enabled }}
  - name: semproxy-run
    emptyDir:
      medium: Memory
      sizeLimit: 1Mi
  {{- end }}
  {{- if .Values.planes.split }}
  - name: semproxy-planes
    emptyDir:
      medium: Memory
      sizeLimit: 1Mi
  {{- end }}
  {{- if .Values.data.enabled }}
  - name: semproxy-data
    emptyDir:
      sizeLimit: {{ .Values.data.sizeLimit }}
  {{- end }}
  {{- range (include "semproxy.secrets" . | fromYaml).list }}
  - name: semproxy-{{ .dir }}
    secret:
      secretName: {{ .secret }}
  {{- end }}
{{- end -}}

{{/* semproxy.ports writes nothing, and fails where two of the pod's ports are one. */}}
{{- define "semproxy.ports" -}}
{{- if and .Values.planes.split (not .Values.proxy.enabled) -}}
{{- fail "\n\nplanes.split needs proxy.enabled: without the proxy there is no request plane.\n" -}}
{{- end -}}
{{- $taken := dict (.Values.admin.port | int | toString) "admin.port" -}}
{{- $ports := dict "engine.port" .Values.engine.port "proxy.port" (ternary .Values.proxy.port 0 .Values.proxy.enabled) -}}
{{- if .Values.planes.split }}{{ $_ := set $ports "planes.adminPort" .Values.planes.adminPort }}{{ end -}}
{{- range $name, $port := $ports -}}
{{- $port = $port | int | toString -}}
{{- with get $taken $port -}}
{{- fail (printf "\n\n%s and %s are both %s: engine and sidecar share the pod's ports.\n" $name . $port) -}}
{{- end -}}
{{- $_ := set $taken $port $name -}}
{{- end -}}
{{- end -}}

{{/*
semproxy.secrets lists the secrets that are mounted below /etc/semproxy, as YAML: {list: [{dir, secret, planes}]}. A container that runs
one plane gets those of its plane and of "both".
*/}}
{{- define "semproxy.secrets" -}}
{{- $all := list -}}
{{- if and .Values.nats.url .Values.nats.existingSecret }}{{ $all = append $all (dict "dir" "nats" "secret" .Values.nats.existingSecret "planes" "pages") }}{{ end -}}
{{- if and .Values.redis.addrs .Values.redis.existingSecret }}{{ $all = append $all (dict "dir" "redis" "secret" .Values.redis.existingSecret "planes" "both") }}{{ end -}}
{{- with .Values.encryption.existingSecret }}{{ $all = append $all (dict "dir" "encryption" "secret" . "planes" "pages") }}{{ end -}}
{{- with .Values.admin.existingSecret }}{{ $all = append $all (dict "dir" "admin" "secret" . "planes" "both") }}{{ end -}}
{{- if .Values.proxy.enabled -}}
{{- with .Values.proxy.identity.existingSecret }}{{ $all = append $all (dict "dir" "keys" "secret" . "planes" "requests") }}{{ end -}}
{{- with .Values.proxy.tls.existingSecret }}{{ $all = append $all (dict "dir" "tls" "secret" . "planes" "requests") }}{{ end -}}
{{- with .Values.engine.apiKeySecret.name }}{{ $all = append $all (dict "dir" "engine" "secret" . "planes" "requests") }}{{ end -}}
{{- end -}}
list: {{ $all | toJson }}
{{- end -}}

{{/*
semproxy.container is the sidecar, or one plane of it: an init container that lives as long as the pod. It is given a dict: top, the
chart's context, and planes, what it runs.
*/}}
{{- define "semproxy.container" -}}
{{- $planes := .planes -}}
{{- $pages := ne $planes "requests" -}}
{{- $requests := ne $planes "pages" -}}
{{- with .top -}}
{{- $proxy := and .Values.proxy.enabled $requests -}}
{{- $resources := deepCopy (default dict (ternary .Values.resources .Values.planes.resources $pages)) -}}
{{- $admin := ternary "semproxy-admin" "semproxy-pages" $requests -}}
name: {{ ternary "semproxy" "semproxy-pages" $requests }}
image: {{ include "semproxy.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
restartPolicy: Always
{{- if eq $planes "both" }}
args: ["serve", "--config", "/etc/semproxy/config/semproxy.yaml"]
{{- else if $requests }}
args: ["serve", "--config", "/etc/semproxy/config/semproxy.yaml", "--planes", "requests"]
{{- else }}
args: ["serve", "--config", "/etc/semproxy/config/semproxy.yaml", "--planes", "pages", "--admin-listen", {{ printf ":%d" (int .Values.planes.adminPort) | quote }}]
{{- end }}
env:
  - name: POD_NAME
    valueFrom: { fieldRef: { apiVersion: v1, fieldPath: metadata.name } }
  - name: POD_NAMESPACE
    valueFrom: { fieldRef: { apiVersion: v1, fieldPath: metadata.namespace } }
  {{- if $proxy }}
  - name: SEMPROXY_PROXY_ENGINE_URL
    value: "http://127.0.0.1:${ENGINE_PORT}"
  {{- end }}
  {{- with include "semproxy.goMemLimit" $resources }}
  - name: GOMEMLIMIT
    value: {{ . | quote }}
  {{- end }}
  - name: OTEL_RESOURCE_ATTRIBUTES
    value: {{ printf "k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE)%s%s" (ternary "" (printf ",k8s.container.name=%s" (ternary "semproxy" "semproxy-pages" $requests)) (eq $planes "both")) (include "semproxy.attributes" .) | quote }}
  {{- if .Values.otel.endpoint }}
  - name: OTEL_EXPORTER_OTLP_ENDPOINT
    value: {{ .Values.otel.endpoint | quote }}
  - name: OTEL_EXPORTER_OTLP_PROTOCOL
    value: {{ .Values.otel.protocol | quote }}
  {{- if .Values.otel.headersSecret.name }}
  - name: OTEL_EXPORTER_OTLP_HEADERS
    valueFrom: { secretKeyRef: { name: {{ .Values.otel.headersSecret.name | quote }}, key: {{ .Values.otel.headersSecret.key | quote }} } }
  {{- end }}
  {{- end }}
  {{- if and $pages (eq .Values.gpu.access "visibleDevices") }}
  - name: NVIDIA_VISIBLE_DEVICES
    value: {{ .Values.gpu.visibleDevices.devices | quote }}
  - name: NVIDIA_DRIVER_CAPABILITIES
    value: compute,utility
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  {{- if $proxy }}
  - name: semproxy
    containerPort: {{ .Values.proxy.port | int }}
    protocol: TCP
  {{- end }}
  - name: {{ $admin }}
    containerPort: {{ ternary .Values.admin.port .Values.planes.adminPort $requests | int }}
    protocol: TCP
{{- /* The pod's readiness is that of requests: the engine's go on, exact, while NATS or Redis is away. */}}
{{- $ready := ternary "/readyz" "/readyz/requests" $proxy }}
{{- $probes := .Values.probes }}
{{- range $name, $path := dict "startupProbe" "/healthz" "livenessProbe" "/healthz" "readinessProbe" $ready }}
{{ $name }}:
  httpGet:
    path: {{ $path }}
    port: {{ $admin }}
    scheme: HTTP
  {{- toYaml (get $probes (trimSuffix "Probe" $name)) | nindent 2 }}
{{- end }}
resources:
  {{- if and $pages (eq .Values.gpu.access "dra") }}
  {{- $claim := dict "name" .Values.gpu.dra.claim }}
  {{- with .Values.gpu.dra.request }}{{ $_ := set $claim "request" . }}{{ end }}
  {{- $_ := set $resources "claims" (list $claim) }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: semproxy-config
    mountPath: /etc/semproxy/config
    readOnly: true
  - name: semproxy-policy
    mountPath: /etc/semproxy/policy
    readOnly: true
  {{- if ne $planes "both" }}
  - name: semproxy-planes
    mountPath: /run/semproxy-planes
  {{- end }}
  {{- if and $pages .Values.sharedMemory.enabled }}
  - name: semproxy-run
    mountPath: /run/semproxy
  - name: ${SHM_VOLUME}
    mountPath: /dev/shm
  {{- end }}
  {{- if and $pages .Values.data.enabled }}
  - name: semproxy-data
    mountPath: /var/lib/semproxy
  {{- end }}
  {{- range (include "semproxy.secrets" . | fromYaml).list }}
  {{- if or (eq $planes "both") (eq .planes "both") (eq .planes $planes) }}
  - name: semproxy-{{ .dir }}
    mountPath: /etc/semproxy/{{ .dir }}
    readOnly: true
  {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "semproxy.attributes" -}}
{{- range $k, $v := .Values.otel.resourceAttributes }},{{ $k }}={{ $v }}{{ end -}}
{{- end -}}

{{/* semproxy.filled is semproxy.injection with both words replaced: the engine's port of the values, and the chart's own volume. */}}
{{- define "semproxy.filled" -}}
{{- include "semproxy.injection" . | replace "${ENGINE_PORT}" (.Values.engine.port | int | toString) | replace "${SHM_VOLUME}" (default "semproxy-shm" .Values.sharedMemory.volume) -}}
{{- end -}}

{{/*
The named templates of injection.mode template, for charts that depend on this one; docs/how-to/kubernetes.md shows them in use:
semproxy.initContainers, semproxy.volumes and semproxy.engineVolumeMounts are lists, semproxy.podLabels a map.
*/}}
{{- define "semproxy.initContainers" -}}
{{- $in := include "semproxy.filled" . | fromYaml -}}
{{- $containers := list $in.sidecar -}}
{{- with $in.pagePlane }}{{ $containers = append $containers . }}{{ end -}}
{{- toYaml $containers -}}
{{- end -}}

{{- define "semproxy.volumes" -}}
{{- $in := include "semproxy.filled" . | fromYaml -}}
{{- $volumes := $in.volumes -}}
{{- if and $in.sharedMemory (not .Values.sharedMemory.volume) }}{{ $volumes = append $volumes $in.sharedMemory }}{{ end -}}
{{- toYaml $volumes -}}
{{- end -}}

{{- define "semproxy.engineVolumeMounts" -}}
{{- $in := include "semproxy.filled" . | fromYaml -}}
{{- $mounts := $in.engine.volumeMounts -}}
{{- if and $in.sharedMemory (not .Values.sharedMemory.volume) }}{{ $mounts = append $mounts (dict "name" "semproxy-shm" "mountPath" "/dev/shm") }}{{ end -}}
{{- toYaml $mounts -}}
{{- end -}}

{{- define "semproxy.podLabels" -}}
{{- include "semproxy.podSelector" . -}}
{{- end -}}
