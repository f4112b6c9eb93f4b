{{/*
semproxy.config is semproxy.yaml: what the chart's values say, then .Values.config over it. Paths are those that semproxy.sidecar mounts.
*/}}
{{- define "semproxy.config" -}}
{{- $v := .Values -}}
{{- $c := dict "admin" (dict "listen" (printf ":%d" (int $v.admin.port))) "policy" (dict "path" "/etc/semproxy/policy") -}}
{{- $_ := set $c.admin "tokenFile" (ternary "/etc/semproxy/admin/token" "" (ne $v.admin.existingSecret "")) -}}
{{- if $v.planes.split }}{{ $_ := set $c "planesSocket" "/run/semproxy-planes/planes.sock" }}{{ end -}}
{{- if $v.nats.url -}}
{{- $nats := dict "url" $v.nats.url -}}
{{- $tls := dict -}}
{{- if $v.nats.existingSecret -}}
{{- with $v.nats.secretKeys.creds }}{{ $_ := set $nats "credsFile" (printf "/etc/semproxy/nats/%s" .) }}{{ end -}}
{{- with $v.nats.secretKeys.nkey }}{{ $_ := set $nats "nkeyFile" (printf "/etc/semproxy/nats/%s" .) }}{{ end -}}
{{- with $v.nats.secretKeys.ca }}{{ $_ := set $tls "caFile" (printf "/etc/semproxy/nats/%s" .) }}{{ end -}}
{{- with $v.nats.secretKeys.cert }}{{ $_ := set $tls "certFile" (printf "/etc/semproxy/nats/%s" .) }}{{ end -}}
{{- with $v.nats.secretKeys.key }}{{ $_ := set $tls "keyFile" (printf "/etc/semproxy/nats/%s" .) }}{{ end -}}
{{- end -}}
{{- with $tls }}{{ $_ := set $nats "tls" . }}{{ end -}}
{{- $_ := set $c "nats" $nats -}}
{{- end -}}
{{- if $v.sharedMemory.enabled -}}
{{- $_ := set $c "sharedMemory" (dict "socket" "/run/semproxy/semproxy.sock" "anyUser" true) -}}
{{- end -}}
{{- $store := dict -}}
{{- if and $v.data.enabled (not $v.redis.addrs) }}{{ $_ := set $store "dir" "/var/lib/semproxy/store" }}{{ end -}}
{{- if $v.redis.addrs -}}
{{- $redis := dict "addrs" $v.redis.addrs -}}
{{- $tls := dict -}}
{{- if $v.redis.tls }}{{ $_ := set $tls "enabled" true }}{{ end -}}
{{- if $v.redis.existingSecret -}}
{{- with $v.redis.secretKeys.username }}{{ $_ := set $redis "usernameFile" (printf "/etc/semproxy/redis/%s" .) }}{{ end -}}
{{- with $v.redis.secretKeys.password }}{{ $_ := set $redis "passwordFile" (printf "/etc/semproxy/redis/%s" .) }}{{ end -}}
{{- with $v.redis.secretKeys.ca }}{{ $_ := set $tls "caFile" (printf "/etc/semproxy/redis/%s" .) }}{{ end -}}
{{- with $v.redis.secretKeys.cert }}{{ $_ := set $tls "certFile" (printf "/etc/semproxy/redis/%s" .) }}{{ end -}}
{{- with $v.redis.secretKeys.key }}{{ $_ := set $tls "keyFile" (printf "/etc/semproxy/redis/%s" .) }}{{ end -}}
{{- end -}}
{{- with $tls }}{{ $_ := set $redis "tls" . }}{{ end -}}
{{- $_ := set $store "redis" $redis -}}
{{- end -}}
{{- if $v.encryption.existingSecret }}{{ $_ := set $store "encryption" (dict "keysDir" "/etc/semproxy/encryption") }}{{ end -}}
{{- with $store }}{{ $_ := set $c "store" . }}{{ end -}}
{{- if eq $v.gpu.access "none" }}{{ $_ := set $c "compress" (dict "device" "cpu") }}{{ end -}}
{{- if $v.proxy.enabled -}}
{{- $engine := dict "kind" $v.engine.kind -}}
{{- if $v.engine.apiKeySecret.name }}{{ $_ := set $engine "apiKeyFile" (printf "/etc/semproxy/engine/%s" $v.engine.apiKeySecret.key) }}{{ end -}}
{{- $proxy := dict "listen" (printf ":%d" (int $v.proxy.port)) "engine" $engine -}}
{{- if $v.proxy.tls.existingSecret }}{{ $_ := set $proxy "tls" (dict "certFile" "/etc/semproxy/tls/tls.crt" "keyFile" "/etc/semproxy/tls/tls.key") }}{{ end -}}
{{- $identity := dict -}}
{{- if $v.proxy.identity.existingSecret }}{{ $_ := set $identity "keysFile" (printf "/etc/semproxy/keys/%s" $v.proxy.identity.key) }}{{ end -}}
{{- if include "semproxy.anonymous" . }}{{ $_ := set $identity "anonymousTenant" "anonymous" }}{{ end -}}
{{- with $identity }}{{ $_ := set $proxy "identity" . }}{{ end -}}
{{- $_ := set $c "proxy" $proxy -}}
{{- end -}}
{{- toYaml (mergeOverwrite $c (deepCopy (default dict $v.config))) -}}
{{- end -}}

{{/* semproxy.anonymous says "true" when nothing tells clients apart, so that all are the tenant "anonymous". */}}
{{- define "semproxy.anonymous" -}}
{{- $id := dig "proxy" "identity" dict (default dict .Values.config) -}}
{{- if and .Values.proxy.enabled (not .Values.proxy.identity.existingSecret) (not $id) -}}
true
{{- end -}}
{{- end -}}

{{/* semproxy.policyFiles is the data of the policy's ConfigMap: the tenants' file, and the one of `helm test`. */}}
{{- define "semproxy.policyFiles" -}}
policy.yaml: |
{{ toYaml (mergeOverwrite (dict "apiVersion" "semproxy.io/v1") (deepCopy (default dict .Values.policy))) | indent 2 }}
{{- if and .Values.prove.enabled (not (hasKey (default dict (default dict .Values.policy).tenants) .Values.prove.tenant)) }}
prove.yaml: |
  # The tenant of `helm test`.
  apiVersion: semproxy.io/v1
  tenants:
    {{ .Values.prove.tenant }}:
      limits: { pagesPerSecond: 100, inFlightBytes: 64MiB, storedBytes: 64MiB }
      rules:
        - profile: balanced
{{- end }}
{{- end -}}

{{/* semproxy.goMemLimit is nine tenths of the memory limit of resources, where that is given in Mi or Gi. */}}
{{- define "semproxy.goMemLimit" -}}
{{- $limit := dig "limits" "memory" "" . | toString -}}
{{- if regexMatch "^[0-9]+Gi$" $limit -}}
{{ div (mul (trimSuffix "Gi" $limit | int64) 1024 9) 10 }}MiB
{{- else if regexMatch "^[0-9]+Mi$" $limit -}}
{{ div (mul (trimSuffix "Mi" $limit | int64) 9) 10 }}MiB
{{- end -}}
{{- end -}}
