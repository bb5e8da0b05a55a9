{{/* The configuration of nodes and of the catalog. What differs between machines comes by
environment variables; secrets are files, named here. */}}

{{/* What both have. */}}
{{- define "penstock.sharedToml" -}}
{{- $ := .root -}}
cluster = {{ $.Values.cluster | quote }}
listen_host = {{ $.Values.listenHost | quote }}
insecure = {{ $.Values.insecure }}
admin_open = {{ $.Values.admin.open }}
log_format = "json"
{{- end -}}

{{- define "penstock.sharedTables" -}}
{{- $ := .root -}}
{{- $stateDir := ternary "/var/lib/penstock" "/var/lib/penstock-catalog" (hasKey . "pool") -}}
{{- with include "penstock.etcdEndpoints" $ | fromJsonArray }}

[etcd]
endpoints = {{ include "penstock.toml" . }}
{{- if include "penstock.etcdClientSecret" $ }}
ca = "/etc/penstock/etcd-tls/ca.crt"
cert = "/etc/penstock/etcd-tls/tls.crt"
key = "/etc/penstock/etcd-tls/tls.key"
{{- end }}
{{- if and (not $.Values.etcd.enabled) $.Values.externalEtcd.username }}
username = {{ $.Values.externalEtcd.username | quote }}
password = { file = "/etc/penstock/etcd-password/{{ $.Values.externalEtcd.password.key }}" }
{{- end }}
{{- end }}
{{- if $.Values.tls.secretName }}

[tls]
cert = "/etc/penstock/tls/tls.crt"
key = "/etc/penstock/tls/tls.key"
ca = "/etc/penstock/tls/ca.crt"
{{- if not $.Values.tls.clientCertificates }}
client_certificates = false
{{- end }}
{{- with $.Values.tls.ports }}
ports = {{ include "penstock.toml" . }}
{{- end }}
{{- end }}
{{- if or (include "penstock.hasAuth" $) $.Values.auth.token.secretName }}

[auth]
{{- with $.Values.auth.tokens }}
{{- if .secretName }}
tokens_file = "/etc/penstock/auth/{{ .key }}"
{{- end }}
{{- end }}
{{- with $.Values.auth.token }}
{{- if .secretName }}
token = { file = "/etc/penstock/token/{{ .key }}" }
{{- end }}
{{- end }}
{{- with $.Values.auth.auditFile }}
audit_file = "{{ $stateDir }}/{{ . }}"
{{- end }}
{{- end }}
{{- with $.Values.auth.kubernetes }}
{{- if .enabled }}

[auth.kubernetes]
audience = {{ .audience | quote }}
grants = {{ include "penstock.grants" .grants }}
{{- end }}
{{- end }}
{{- range $name, $secret := $.Values.secrets }}

[secrets.{{ $name | quote }}]
{{- with $secret.hosts }}
hosts = {{ include "penstock.toml" . }}
{{- end }}
{{- range $option, $key := $secret.keys }}
{{ $option }} = { file = "/etc/penstock/secrets/{{ $name }}/{{ $key }}" }
{{- end }}
{{- end }}
{{- end -}}

{{- define "penstock.grants" -}}
{{- $found := list -}}
{{- range . -}}
{{- $grant := dict "role" .role "volumes" (.volumes | default list) -}}
{{- if .serviceAccount -}}
{{- $grant = set $grant "service_account" .serviceAccount -}}
{{- else -}}
{{- $grant = set $grant "namespace" .namespace -}}
{{- end -}}
{{- $found = append $found $grant -}}
{{- end -}}
{{- include "penstock.toml" $found -}}
{{- end -}}

{{/* Other keys, those of the pool over those of all. Argument: keys of all, keys of one. */}}
{{- define "penstock.otherKeys" -}}
{{- range $key, $value := merge (deepCopy (.one | default dict)) .all }}
{{ $key }} = {{ include "penstock.toml" $value }}
{{- end }}
{{- end -}}

{{/* By which readers reach an S3 gateway that asks nobody who he is: it answers by names that it
knows alone. */}}
{{- define "penstock.s3Names" -}}
{{- $found := list -}}
{{- if and .Values.s3.enabled (ne .Values.s3.auth "keys") -}}
{{- $service := printf "%s-s3" (include "penstock.fullname" .) -}}
{{- $inside := printf "%s.%s" $service .Release.Namespace -}}
{{- $found = list $service $inside (printf "%s.svc" $inside) (printf "%s.svc.%s" $inside .Values.clusterDomain) -}}
{{- end -}}
{{- toRawJson $found -}}
{{- end -}}

{{/* Below which this pod's address has a name. Certificates name names: addresses come and go. */}}
{{- define "penstock.advertiseDomain" -}}
{{- if .root.Values.tls.secretName }}
advertise_domain = {{ include "penstock.podDomain" . | quote }}
{{- end }}
{{- end -}}

{{/* Argument: root, pool. */}}
{{- define "penstock.nodeToml" -}}
{{- $ := .root -}}
{{- $pool := .pool -}}
{{ include "penstock.sharedToml" . }}
{{- include "penstock.advertiseDomain" (dict "root" $ "of" "nodes") }}
state_dir = "/var/lib/penstock"
grpc_port = {{ $.Values.ports.grpc }}
bulk_port = {{ $.Values.ports.bulk }}
admin_port = {{ $.Values.ports.admin }}
socket = "/run/penstock/node.sock"
{{- if and $.Values.hostPlane.enabled (ne $.Values.hostPlane.auth "directory") }}
socket_auth = {{ $.Values.hostPlane.auth | quote }}
{{- end }}
{{- with $pool.weight }}
weight = {{ include "penstock.toml" . }}
{{- end }}
join_after = {{ $pool.joinAfter | default "0s" | quote }}
{{- with $.Values.s3 }}
{{- if .enabled }}
s3_port = {{ $.Values.ports.s3 }}
s3_auth = {{ .auth | quote }}
{{- with .trustedNetworks }}
s3_trusted_networks = {{ include "penstock.toml" . }}
{{- end }}
{{- with .domain }}
s3_domain = {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- $other := merge (deepCopy ($pool.config | default dict)) $.Values.config }}
{{- with concat ($other.admin_hosts | default list) (include "penstock.s3Names" $ | fromJsonArray) }}
{{- $_ := set $other "admin_hosts" . }}
{{- end }}
{{- include "penstock.otherKeys" (dict "all" $other) }}
{{- range $pool.tiers }}

[[tiers]]
path = "/tiers/{{ .name }}"
read_only_path = "/tiers-read-only/{{ .name }}"
role = {{ .role | quote }}
capacity = {{ .capacity | quote }}
{{- with .freeFloor }}
free_floor = {{ . | quote }}
{{- end }}
{{- end }}
{{- include "penstock.sharedTables" . }}
{{- with $.Values.kubernetes }}
{{- if .enabled }}

[kubernetes]
drain_on_cordon = {{ .drainOnCordon }}
drain_within = {{ .drainWithin | quote }}
{{- with .drainTaints }}
drain_taints = {{ include "penstock.toml" . }}
{{- end }}
{{- end }}
{{- end }}
{{- with $.Values.settings }}

[settings]
{{- range $key, $value := . }}
{{ $key }} = {{ include "penstock.toml" $value }}
{{- end }}
{{- end }}
{{- include "penstock.volumesToml" $ }}
{{- if $.Values.s3.enabled }}
{{- range $.Values.s3.keys }}

[s3_keys.{{ .name | quote }}]
access_key_id = {{ .accessKeyId | quote }}
secret_access_key = { file = "/etc/penstock/s3-keys/{{ .name }}/{{ .key }}" }
{{- with .volumes }}
volumes = {{ include "penstock.toml" . }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "penstock.volumesToml" -}}
{{- range $name, $volume := .Values.volumes }}

[volumes.{{ $name | quote }}]
{{- range $key, $value := $volume }}
{{ $key }} = {{ include "penstock.toml" $value }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "penstock.catalogToml" -}}
{{- $ := . -}}
{{ include "penstock.sharedToml" (dict "root" .) }}
{{- include "penstock.advertiseDomain" (dict "root" . "of" "catalog") }}
state_dir = "/var/lib/penstock-catalog"
grpc_port = {{ .Values.catalog.ports.grpc }}
admin_port = {{ .Values.catalog.ports.admin }}
{{- with .Values.catalog.mirrorOf }}
mirror_of = {{ . | quote }}
{{- end }}
{{- with .Values.catalog.eventsToken }}
{{- if .secretName }}
events_token = { file = "/etc/penstock/events-token/{{ .key }}" }
{{- end }}
{{- end }}
{{- include "penstock.otherKeys" (dict "all" .Values.catalog.config) }}
{{- include "penstock.sharedTables" (dict "root" .) }}
{{- if not (include "penstock.hasEtcd" .) }}
{{- include "penstock.volumesToml" . }}
{{- end }}
{{- end -}}

{{/* The Secrets that both mount. Argument: root. */}}
{{- define "penstock.secretVolumes" -}}
{{- $ := .root -}}
{{- range $volume := include "penstock.mountedSecrets" . | fromJsonArray }}
- name: {{ $volume.volume }}
  secret:
    secretName: {{ $volume.secretName }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "penstock.secretMounts" -}}
{{- range $volume := include "penstock.mountedSecrets" . | fromJsonArray }}
- name: {{ $volume.volume }}
  mountPath: {{ $volume.path }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "penstock.mountedSecrets" -}}
{{- $ := .root -}}
{{- $found := list -}}
{{- with $.Values.tls.secretName -}}
{{- $found = append $found (dict "volume" "tls" "secretName" . "path" "/etc/penstock/tls") -}}
{{- end -}}
{{- with $.Values.auth.tokens.secretName -}}
{{- $found = append $found (dict "volume" "auth" "secretName" . "path" "/etc/penstock/auth") -}}
{{- end -}}
{{- with $.Values.auth.token.secretName -}}
{{- $found = append $found (dict "volume" "token" "secretName" . "path" "/etc/penstock/token") -}}
{{- end -}}
{{- with include "penstock.etcdClientSecret" $ -}}
{{- $found = append $found (dict "volume" "etcd-tls" "secretName" . "path" "/etc/penstock/etcd-tls") -}}
{{- end -}}
{{- if and (not $.Values.etcd.enabled) $.Values.externalEtcd.username -}}
{{- $found = append $found (dict "volume" "etcd-password" "secretName" $.Values.externalEtcd.password.secretName "path" "/etc/penstock/etcd-password") -}}
{{- end -}}
{{- range $name, $secret := $.Values.secrets -}}
{{- $found = append $found (dict "volume" (printf "secret-%s" $name) "secretName" $secret.secretName "path" (printf "/etc/penstock/secrets/%s" $name)) -}}
{{- end -}}
{{- if .isCatalog -}}
{{- with $.Values.catalog.eventsToken.secretName -}}
{{- $found = append $found (dict "volume" "events-token" "secretName" . "path" "/etc/penstock/events-token") -}}
{{- end -}}
{{- else if $.Values.s3.enabled -}}
{{- range $.Values.s3.keys -}}
{{- $found = append $found (dict "volume" (printf "s3-key-%s" .name) "secretName" .secretName "path" (printf "/etc/penstock/s3-keys/%s" .name)) -}}
{{- end -}}
{{- end -}}
{{- toRawJson $found -}}
{{- end -}}

{{/* What a verb of the command line shows, in our own pods. Argument: root. */}}
{{- define "penstock.clientEnv" -}}
{{- if .root.Values.tls.secretName }}
- name: PENSTOCK_CA
  value: /etc/penstock/tls/ca.crt
{{- if .root.Values.tls.clientCertificates }}
- name: PENSTOCK_CERT
  value: /etc/penstock/tls/tls.crt
- name: PENSTOCK_KEY
  value: /etc/penstock/tls/tls.key
{{- end }}
{{- end }}
{{- with .root.Values.auth.token }}
{{- if .secretName }}
- name: PENSTOCK_TOKEN_FILE
  value: /etc/penstock/token/{{ .key }}
{{- end }}
{{- end }}
{{- end -}}
