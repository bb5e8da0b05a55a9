{{/* What the schema cannot say: values that are good by themselves and do not go together. */}}
{{- define "penstock.checks" -}}
{{- if not (or .Values.insecure .Values.tls.secretName (include "penstock.hasAuth" .)) -}}
{{- fail "choose how nodes know who calls: tls.secretName, with auth.tokens or auth.kubernetes if you like, or insecure: true (plain text, no credentials: for a network of your own)" -}}
{{- end -}}
{{- if not .Values.insecure -}}
{{- if and (include "penstock.hasAuth" .) (not .Values.tls.secretName) -}}
{{- fail "auth without tls sends tokens in plain text: set tls.secretName, or insecure: true" -}}
{{- end -}}
{{- if and .Values.tls.secretName (not .Values.tls.clientCertificates) (not (include "penstock.hasAuth" .)) -}}
{{- fail "tls without tls.clientCertificates and without auth lets everybody in: set auth, or insecure: true" -}}
{{- end -}}
{{- if and .Values.s3.enabled (eq .Values.s3.auth "anonymous") -}}
{{- fail "s3.auth: anonymous lets everybody read who reaches the port: set s3.auth to keys, or to ignore with s3.trustedNetworks, or insecure: true" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.etcd.enabled .Values.externalEtcd.endpoints -}}
{{- fail "etcd.enabled and externalEtcd.endpoints: keep one; with an etcd of your own set etcd.enabled: false" -}}
{{- end -}}
{{- include "penstock.checkEtcdMembers" . -}}
{{- $names := list -}}
{{- $isHostNetwork := false -}}
{{- range $pool := .Values.pools -}}
{{- if has $pool.name $names -}}
{{- fail (printf "two pools are called %s: give each a name of its own" $pool.name) -}}
{{- end -}}
{{- $names = append $names $pool.name -}}
{{- $isHostNetwork = or $isHostNetwork $pool.hostNetwork -}}
{{- if and $pool.drainOnStop (not (include "penstock.isStateLost" $pool)) -}}
{{- fail (printf "pool %s: drainOnStop takes a node off the ring at each stop, also of an upgrade, and it would come back with weight 0: leave it out (kubectl drain and taints drain the node by themselves, see kubernetes.enabled), or set state.emptyDir: true, where each pod is a new node" $pool.name) -}}
{{- end -}}
{{- $tiers := list -}}
{{- $paths := list -}}
{{- range $tier := $pool.tiers -}}
{{- if has $tier.name $tiers -}}
{{- fail (printf "pool %s: two tiers are called %s" $pool.name $tier.name) -}}
{{- end -}}
{{- $tiers = append $tiers $tier.name -}}
{{- with $tier.hostPath -}}
{{- if has . $paths -}}
{{- fail (printf "pool %s: two tiers lie at %s" $pool.name .) -}}
{{- end -}}
{{- $paths = append $paths . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $isHostNetwork .Values.networkPolicy.enabled (not .Values.networkPolicy.nodeCIDRs) -}}
{{- fail "a pool with hostNetwork calls from the machine's own address, which no pod selector matches: name the machines' networks in networkPolicy.nodeCIDRs, or set networkPolicy.enabled: false" -}}
{{- end -}}
{{- if .Values.monitoring.serviceMonitor.enabled -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.monitoring) -}}
{{- fail "monitoring.serviceMonitor: Prometheus may not reach what it is to ask, and would find all of it down: say where it runs in networkPolicy.monitoring, for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}], or set networkPolicy.enabled: false" -}}
{{- end -}}
{{- if not (or .Values.admin.open (and (include "penstock.hasAuth" .) .Values.monitoring.serviceMonitor.token.secretName)) -}}
{{- fail "monitoring.serviceMonitor: nodes show no metrics to Prometheus, which would find all of them down: set admin.open: true, or auth and in monitoring.serviceMonitor.token a token of role reader" -}}
{{- end -}}
{{- end -}}
{{- $catalog := .Values.catalog -}}
{{- if and $catalog.enabled (gt (int $catalog.replicas) 1) (not $catalog.database.postgresql.secretName) -}}
{{- fail "several catalogs need one PostgreSQL: set catalog.database.postgresql, or catalog.replicas: 1" -}}
{{- end -}}
{{- range $name, $volume := .Values.volumes -}}
{{- $secret := $volume.secret -}}
{{- if and $secret (not (hasKey $.Values.secrets $secret)) -}}
{{- fail (printf "volumes.%s.secret: there is no secrets.%s" $name $secret) -}}
{{- end -}}
{{- range $volume.origins -}}
{{- if and .secret (not (hasKey $.Values.secrets .secret)) -}}
{{- fail (printf "volumes.%s.origins: there is no secrets.%s" $name .secret) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Members are told who they are when they begin, and keep to it: beside data of another number new
ones form a cluster of their own, or none. Of what is in the cluster only Helm itself knows: to
`helm template` there is nothing. */}}
{{- define "penstock.checkEtcdMembers" -}}
{{- if .Values.etcd.enabled -}}
{{- $name := printf "%s-etcd" (include "penstock.fullname" .) -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" .Release.Namespace (printf "data-%s-0" $name) -}}
{{- $members := dig "metadata" "labels" "penstock.io/etcd-members" "" $claim -}}
{{- if and $members (ne $members (.Values.etcd.replicas | toString)) -}}
{{- $selector := printf "app.kubernetes.io/instance=%s,app.kubernetes.io/component=etcd" .Release.Name -}}
{{- $inNamespace := printf "kubectl -n %s" .Release.Namespace -}}
{{- fail (printf "etcd.replicas: %v, and there are claims of an etcd of %s, whose data are good for that number alone. Keep it, or have etcd begin empty, as nodes write what it held anew: %s delete statefulset %s --ignore-not-found; %s delete pvc --selector %s; then this again, while nodes run. See docs/guide/kubernetes.md, etcd" .Values.etcd.replicas $members $inNamespace $name $inNamespace $selector) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether a pool's nodes forget who they were with their pod. */}}
{{- define "penstock.isStateLost" -}}
{{- if .state }}{{ if .state.emptyDir }}true{{ end }}{{ end -}}
{{- end -}}
