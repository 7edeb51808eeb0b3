{{/*
What an app's own chart includes, each by one line, with the context of this chart (`.Subcharts.sidewire`):
  sidewire.container       an entry of initContainers: started before the app, stopped after it
  sidewire.volumes         entries of volumes
  sidewire.podAnnotations  so that a change of the configuration reaches the pods
*/}}
{{- define "sidewire.podAnnotations" -}}
sidewire/config: {{ include "sidewire.configText" . | sha256sum }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sidewire.container" -}}
- name: sidewire
  restartPolicy: Always
{{ include "sidewire.containerBody" . | indent 2 }}
{{- end }}

{{- define "sidewire.containerBody" -}}
{{- $gateway := eq .Values.mode "gateway" -}}
{{- $daemonset := eq .Values.mode "daemonset" -}}
{{- $readiness := .Values.probes.readiness -}}
{{- if kindIs "invalid" $readiness }}{{ $readiness = ne .Values.mode "sidecar" }}{{ end -}}
{{- $scheme := include "sidewire.adminScheme" . -}}
image: {{ include "sidewire.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, --config, /etc/sidewire/sidewire.toml]
{{- if or .Values.secrets (and $daemonset (eq .Values.daemonset.access "port")) }}
env:
  {{- if and $daemonset (eq .Values.daemonset.access "port") }}
  # Apps name the node's address as the host of their requests.
  - name: SIDEWIRE_APP__ALLOWED_HOSTS
    valueFrom:
      fieldRef:
        fieldPath: status.hostIP
  {{- end }}
  {{- range .Values.secrets }}
  - name: SIDEWIRE_{{ .key | replace "." "__" | upper }}
    {{- if hasSuffix "_file" .key }}
    value: /run/secrets/sidewire/{{ .key }}
    {{- else }}
    valueFrom:
      secretKeyRef:
        name: {{ .secret }}
        key: {{ .entry }}
    {{- end }}
  {{- end }}
{{- end }}
ports:
  - name: sw-client
    containerPort: {{ .Values.client.port }}
  - name: sw-admin
    containerPort: {{ .Values.admin.port }}
  {{- if or .Values.app.expose (and $daemonset (eq .Values.daemonset.access "port")) }}
  - name: sw-app
    containerPort: {{ .Values.app.port }}
    {{- if $daemonset }}
    hostPort: {{ .Values.app.port }}
    {{- end }}
  {{- end }}
# Opening a large log after a crash takes time.
startupProbe:
  httpGet: {path: /healthz, port: sw-admin, scheme: {{ $scheme }}}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /healthz, port: sw-admin, scheme: {{ $scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
{{- if $readiness }}
readinessProbe:
  httpGet: {path: /readyz, port: sw-admin, scheme: {{ $scheme }}}
  periodSeconds: 3
  timeoutSeconds: 2
{{- end }}
{{- if $gateway }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.preStopSeconds }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: sidewire-config
    mountPath: /etc/sidewire
    readOnly: true
  - name: sidewire-data
    mountPath: /var/lib/sidewire
  {{- if include "sidewire.secretFiles" . }}
  - name: sidewire-secrets
    mountPath: /run/secrets/sidewire
    readOnly: true
  {{- end }}
  {{- if and $daemonset (eq .Values.daemonset.access "socket") }}
  - name: sidewire-socket
    mountPath: {{ .Values.daemonset.socketDirectory }}
  {{- end }}
{{- end }}

{{/* The sources of the volume with secrets that are files; empty if there are none. */}}
{{- define "sidewire.secretFiles" -}}
{{- range .Values.secrets }}
{{- if hasSuffix "_file" .key }}
- secret:
    name: {{ .secret }}
    items:
      - key: {{ .entry }}
        path: {{ .key }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sidewire.volumes" -}}
- name: sidewire-config
  configMap:
    name: {{ include "sidewire.fullname" . }}
{{- with include "sidewire.secretFiles" . }}
- name: sidewire-secrets
  projected:
    # The pod's fsGroup may read it besides root; nobody else.
    defaultMode: 0440
    sources:
      {{- . | trim | nindent 6 }}
{{- end }}
{{- if and (eq .Values.mode "daemonset") (eq .Values.daemonset.access "socket") }}
- name: sidewire-socket
  hostPath:
    path: {{ .Values.daemonset.socketDirectory }}
    type: Directory
{{- end }}
{{- if not (and (eq .Values.mode "gateway") .Values.persistence.enabled) }}
- name: sidewire-data
  {{- if and .Values.persistence.existingClaim (eq .Values.mode "sidecar") }}
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.existingClaim }}
  {{- else if and .Values.persistence.hostPath (eq .Values.mode "daemonset") }}
  hostPath:
    path: {{ .Values.persistence.hostPath }}
    type: Directory
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.persistence.emptyDirSize }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The pod of a gateway and of a daemonset. */}}
{{- define "sidewire.pod" -}}
{{- $needed := add (include "sidewire.drainSeconds" . | int) (ternary (.Values.preStopSeconds | int) 0 (eq .Values.mode "gateway")) -}}
{{- if lt (.Values.terminationGracePeriodSeconds | int) ($needed | int) -}}
{{- fail (printf "terminationGracePeriodSeconds is %v, and the drain takes up to %v s: raise it, or lower config.client.drain" .Values.terminationGracePeriodSeconds $needed) -}}
{{- end -}}
metadata:
  labels:
    {{- include "sidewire.selectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- include "sidewire.podAnnotations" . | nindent 4 }}
spec:
  serviceAccountName: {{ include "sidewire.fullname" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.affinity }}
  affinity:
    {{- toYaml .Values.affinity | nindent 4 }}
  {{- else if eq .Values.mode "gateway" }}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "sidewire.selectorLabels" . | nindent 16 }}
  {{- end }}
  {{- if and (eq .Values.mode "gateway") .Values.gateway.zoneSpread.enabled }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: {{ .Values.gateway.zoneSpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "sidewire.selectorLabels" . | nindent 10 }}
  {{- end }}
  containers:
    - name: sidewire
      {{- include "sidewire.containerBody" . | nindent 6 }}
  volumes:
    {{- include "sidewire.volumes" . | nindent 4 }}
{{- end }}
