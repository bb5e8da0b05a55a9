{{/* Names, labels, and what pods have in common. */}}

{{- define "penstock.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of everything. Argument: root, component, and pool where there is one. */}}
{{- define "penstock.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
penstock.io/pool: {{ .name }}
{{- end }}
{{- end -}}

{{/* Not of pods: those would be replaced with each version of the chart. */}}
{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "penstock.metadata" -}}
name: {{ .name }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "penstock.labels" . | nindent 2 }}
{{- end -}}

{{- define "penstock.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ printf "%s@%s" .repository .digest }}
{{- else -}}
{{ printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "penstock.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.user.uid }}
runAsGroup: {{ .Values.user.gid }}
fsGroup: {{ .Values.user.gid }}
{{/* Else the kubelet walks through a whole cache before each start. */ -}}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- with .Values.seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "penstock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What all pods of ours say of where they run. Argument: root, of. */}}
{{- define "penstock.scheduling" -}}
{{- with .of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Each of several on a machine of its own, and in zones as far as may be. Argument: as of labels. */}}
{{- define "penstock.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: DoNotSchedule
    labelSelector:
      matchLabels:
        {{- include "penstock.selector" . | nindent 8 }}
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "penstock.selector" . | nindent 8 }}
{{- end -}}

{{/* Bytes of a size: of ours (64GiB, 4TB) or of a Kubernetes quantity (64Gi, 4G, 1000). */}}
{{- define "penstock.bytes" -}}
{{- $text := . | toString -}}
{{- if regexMatch "^[0-9]+(\\.[0-9]+)?e\\+?[0-9]+$" $text -}}
{{- $text = printf "%.0f" (float64 .) -}}
{{- end -}}
{{- $number := regexFind "^[0-9]+" $text -}}
{{- $unit := trimPrefix $number $text | trimSuffix "B" | upper -}}
{{- $units := dict "" 1 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000 "KI" 1024 "MI" 1048576 "GI" 1073741824 "TI" 1099511627776 "PI" 1125899906842624 -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "%q is not a size in whole units; write for example 64GiB (a tier) or 64Gi (memory)" $text) -}}
{{- end -}}
{{- mul (int64 $number) (get $units $unit | int64) -}}
{{- end -}}

{{/* Whole seconds of a duration, as the schema has it; a part of one counts as one. */}}
{{- define "penstock.seconds" -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" . -}}
{{- $unit := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) (trimPrefix $number .) -}}
{{- mulf (float64 $number) $unit | ceil | int64 -}}
{{- end -}}

{{/* A value as TOML has it. Strings of JSON are strings of TOML. */}}
{{- define "penstock.toml" -}}
{{- $value := . -}}
{{- if kindIs "map" . -}}
{ {{ range $at, $key := keys . | sortAlpha }}{{ if $at }}, {{ end }}{{ $key | toRawJson }} = {{ include "penstock.toml" (get $value $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{ range $at, $each := . }}{{ if $at }}, {{ end }}{{ include "penstock.toml" $each }}{{ end }}]
{{- else if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else if kindIs "string" . -}}
{{ toRawJson . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{/* Where the cluster's etcd is, as JSON: nothing for a cluster of one. */}}
{{- define "penstock.etcdEndpoints" -}}
{{- $found := list -}}
{{- if .Values.etcd.enabled -}}
{{- $name := printf "%s-etcd" (include "penstock.fullname" .) -}}
{{- $scheme := ternary "https" "http" (not (empty .Values.etcd.tls.secretName)) -}}
{{- range $at := until (int .Values.etcd.replicas) -}}
{{- $found = append $found (printf "%s://%s-%d.%s.%s.svc.%s:2379" $scheme $name $at $name $.Release.Namespace $.Values.clusterDomain) -}}
{{- end -}}
{{- else -}}
{{- $found = .Values.externalEtcd.endpoints -}}
{{- end -}}
{{- toRawJson $found -}}
{{- end -}}

{{/* The Secret of a client of etcd; empty for none. */}}
{{- define "penstock.etcdClientSecret" -}}
{{- if .Values.etcd.enabled -}}
{{- .Values.etcd.tls.clientSecretName | default .Values.etcd.tls.secretName -}}
{{- else -}}
{{- .Values.externalEtcd.tlsSecretName -}}
{{- end -}}
{{- end -}}

{{- define "penstock.hasEtcd" -}}
{{- if include "penstock.etcdEndpoints" . | fromJsonArray }}true{{ end -}}
{{- end -}}

{{- define "penstock.hasAuth" -}}
{{- if or .Values.auth.tokens.secretName .Values.auth.kubernetes.enabled }}true{{ end -}}
{{- end -}}

{{- define "penstock.adminScheme" -}}
{{- if and .Values.tls.secretName (has "admin" .Values.tls.ports) }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}

{{/* Below which pods' addresses have names. Argument: root, of: nodes or catalog. */}}
{{- define "penstock.podDomain" -}}
{{- $service := printf "%s-%s.%s.svc.%s" (include "penstock.fullname" .root) .of .root.Release.Namespace .root.Values.clusterDomain -}}
{{- .root.Values.tls.nodeDomain | default $service -}}
{{- end -}}

{{/* The label `job` of what Prometheus scrapes, as the rules have it. */}}
{{- define "penstock.job" -}}
{{- if eq .root.Values.cluster "penstock" -}}
{{ .of }}
{{- else -}}
{{ printf "%s-%s" .of .root.Values.cluster }}
{{- end -}}
{{- end -}}
