{{/* The parts of a node's pod. Argument of each: root, pool, and what labels need. */}}

{{/* Whether directories of the machine have to be given to the node. */}}
{{- define "penstock.isPrepared" -}}
{{- $found := "" -}}
{{- if .root.Values.prepare.enabled -}}
{{- if or .root.Values.hostPlane.enabled (not (include "penstock.isStateLost" .pool)) -}}
{{- $found = "true" -}}
{{- end -}}
{{- range .pool.tiers }}{{ if .hostPath }}{{ $found = "true" }}{{ end }}{{ end -}}
{{- end -}}
{{- $found -}}
{{- end -}}

{{- define "penstock.isAnyPrepared" -}}
{{- range $pool := .Values.pools }}{{ include "penstock.isPrepared" (dict "root" $ "pool" $pool) }}{{ end -}}
{{- end -}}

{{- define "penstock.prepareContainer" -}}
{{- $values := .root.Values -}}
- name: prepare
  image: {{ include "penstock.image" .root }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  command:
    - python3
    - /etc/penstock/prepare/prepare.py
    - --owner={{ $values.user.uid }}:{{ $values.user.gid }}
    {{- if not (include "penstock.isStateLost" .pool) }}
    - --state=/var/lib/penstock
    - --machine=$(MACHINE)
    {{- end }}
    {{- if $values.hostPlane.enabled }}
    - --socket-directory=/run/penstock
    {{- end }}
    {{- range .pool.tiers }}
    {{- if .hostPath }}
    {{- if ne .requireMount false }}
    - --disk=/tiers/{{ .name }}={{ .hostPath }}
    {{- else }}
    - --tier=/tiers/{{ .name }}
    {{- end }}
    {{- end }}
    {{- end }}
  env:
    - name: MACHINE
      valueFrom:
        fieldRef:
          fieldPath: spec.nodeName
  # The kubelet makes directories of the machine as root, and fsGroup does not apply to them.
  securityContext:
    runAsNonRoot: false
    runAsUser: 0
    runAsGroup: 0
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
      add: [CHOWN, DAC_OVERRIDE]
  resources:
    requests:
      cpu: 10m
      memory: 32Mi
    limits:
      memory: 128Mi
  volumeMounts:
    - name: prepare
      mountPath: /etc/penstock/prepare
      readOnly: true
    {{- if not (include "penstock.isStateLost" .pool) }}
    - name: state
      mountPath: /var/lib/penstock
    {{- end }}
    {{- if $values.hostPlane.enabled }}
    - name: run
      mountPath: /run/penstock
    {{- end }}
    {{- range .pool.tiers }}
    {{- if .hostPath }}
    - name: tier-{{ .name }}
      mountPath: /tiers/{{ .name }}
    {{- end }}
    {{- end }}
{{- end -}}

{{/*
What is run before a node is stopped, as JSON: the command, and how long it takes at the longest;
empty for nothing. Karpenter evicts pods of DaemonSets too, as soon as all others are gone: a drain
that the machine's taint has begun is waited for. At a stop without one, as of an upgrade, nothing
moves. Without a token it could not ask.
*/}}
{{- define "penstock.stopHook" -}}
{{- $values := .root.Values -}}
{{- $mayAsk := or $values.auth.token.secretName (not (include "penstock.hasAuth" .root)) -}}
{{- $longest := .pool.drainOnStop -}}
{{- $how := list "--reason" "the pod is stopped" -}}
{{- if and (not $longest) $values.kubernetes.enabled (eq .pool.role "member") $mayAsk -}}
{{- $longest = $values.kubernetes.drainWithin -}}
{{- $how = list "--if-begun" -}}
{{- end -}}
{{- if $longest -}}
{{ dict "longest" $longest "command" (concat (list "penstock" "drain" "--self" "--timeout" $longest) $how) | toRawJson }}
{{- end -}}
{{- end -}}

{{- define "penstock.nodeContainer" -}}
{{- $values := .root.Values -}}
{{- $pool := .pool -}}
- name: node
  image: {{ include "penstock.image" .root }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  command: [penstock, node, --config, /etc/penstock/config/node.toml]
  env:
    - name: PENSTOCK_ADVERTISE_HOST
      valueFrom:
        fieldRef:
          fieldPath: status.podIP
    - name: PENSTOCK_ZONE
      {{- if $pool.zone }}
      value: {{ $pool.zone | quote }}
      {{- else }}
      # Kubernetes 1.35 and later give pods the zone of their machine as a label. Without, empty.
      valueFrom:
        fieldRef:
          fieldPath: metadata.labels['topology.kubernetes.io/zone']
      {{- end }}
    {{- if $values.kubernetes.enabled }}
    - name: PENSTOCK_KUBERNETES__NODE_NAME
      valueFrom:
        fieldRef:
          fieldPath: spec.nodeName
    {{- end }}
    {{- with include "penstock.clientEnv" . }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    {{- with $pool.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: grpc
      containerPort: {{ $values.ports.grpc }}
    - name: bulk
      containerPort: {{ $values.ports.bulk }}
    - name: admin
      containerPort: {{ $values.ports.admin }}
    {{- if $values.s3.enabled }}
    - name: s3
      containerPort: {{ $values.ports.s3 }}
    {{- end }}
  startupProbe:
    httpGet:
      path: /healthz
      port: admin
      scheme: {{ include "penstock.adminScheme" .root }}
    periodSeconds: 2
    failureThreshold: 60
  readinessProbe:
    httpGet:
      path: /readyz
      port: admin
      scheme: {{ include "penstock.adminScheme" .root }}
    periodSeconds: 5
    timeoutSeconds: 3
    failureThreshold: 2
  # Whether it lives, not whether etcd or the bucket do: a restart would mend neither.
  livenessProbe:
    httpGet:
      path: /healthz
      port: admin
      scheme: {{ include "penstock.adminScheme" .root }}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  {{- with include "penstock.stopHook" . }}
  lifecycle:
    preStop:
      exec:
        command: {{ (fromJson .).command | toRawJson }}
  {{- end }}
  securityContext:
    {{- include "penstock.containerSecurity" .root | nindent 4 }}
  resources:
    {{- include "penstock.nodeResources" . | nindent 4 }}
  volumeMounts:
    - name: config
      mountPath: /etc/penstock/config
      readOnly: true
    - name: state
      mountPath: /var/lib/penstock
    - name: run
      mountPath: /run/penstock
    - name: tmp
      mountPath: /tmp
    {{- range $pool.tiers }}
    - name: tier-{{ .name }}
      mountPath: /tiers/{{ .name }}
    # Once more, read-only: files that programs of other pods are given cannot be opened for writing.
    - name: tier-{{ .name }}
      mountPath: /tiers-read-only/{{ .name }}
      readOnly: true
    {{- end }}
    {{- with include "penstock.secretMounts" (dict "root" .root) }}
    {{- . | trim | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* What a tmpfs holds counts for whoever wrote it: memory tiers are on top of what a node takes. */}}
{{- define "penstock.nodeResources" -}}
{{- $resources := mergeOverwrite (deepCopy .root.Values.resources) (deepCopy (.pool.resources | default dict)) -}}
{{- $tiers := 0 -}}
{{- range .pool.tiers -}}
{{- if eq .role "memory" -}}
{{- $tiers = add $tiers (include "penstock.bytes" .capacity | int64) -}}
{{- end -}}
{{- end -}}
{{- range $kind := list "requests" "limits" -}}
{{- with (get $resources $kind).memory -}}
{{- $bytes := add $tiers (include "penstock.bytes" . | int64) -}}
{{- $_ := set (get $resources $kind) "memory" ($bytes | toString) -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "penstock.nodeVolumes" -}}
{{- $values := .root.Values -}}
{{- $state := .pool.state | default dict -}}
- name: config
  configMap:
    name: {{ .name }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
- name: state
  {{- if $state.emptyDir }}
  emptyDir: {}
  {{- else }}
  hostPath:
    path: {{ $state.hostPath | default "/var/lib/penstock" }}
    type: DirectoryOrCreate
  {{- end }}
- name: run
  {{- if $values.hostPlane.enabled }}
  hostPath:
    path: {{ $values.hostPlane.hostPath }}
    type: DirectoryOrCreate
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- if include "penstock.isPrepared" . }}
- name: prepare
  configMap:
    name: {{ include "penstock.fullname" .root }}-prepare
{{- end }}
{{- range .pool.tiers }}
- name: tier-{{ .name }}
  {{- if eq .role "memory" }}
  emptyDir:
    medium: Memory
    sizeLimit: {{ include "penstock.bytes" .capacity | quote }}
  {{- else if .hostPath }}
  hostPath:
    path: {{ .hostPath }}
    type: DirectoryOrCreate
  {{- else if .ephemeral }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: {{ .ephemeral.storageClassName }}
        resources:
          requests:
            storage: {{ .ephemeral.size }}
  {{- else }}
  # With room for what a file system keeps of its own: what is over it is evicted with the pod.
  emptyDir:
    sizeLimit: {{ add (include "penstock.bytes" .capacity | int64) 1073741824 | toString | quote }}
  {{- end }}
{{- end }}
{{- with include "penstock.secretVolumes" (dict "root" .root) }}
{{- . | trim | nindent 0 }}
{{- end }}
{{- end -}}
