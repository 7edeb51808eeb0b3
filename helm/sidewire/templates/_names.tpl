{{- define "sidewire.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "sidewire.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "sidewire.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "sidewire.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sidewire.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sidewire.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.mode }}
{{- end }}

{{- define "sidewire.labels" -}}
{{ include "sidewire.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "sidewire.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* What the admin listener speaks: HTTP, or HTTPS with a certificate of its own. */}}
{{- define "sidewire.adminScheme" -}}
{{- $scheme := "HTTP" -}}
{{- if dig "admin" "tls_cert_file" "" .Values.config }}{{ $scheme = "HTTPS" }}{{ end -}}
{{- range .Values.secrets }}{{ if eq .key "admin.tls_cert_file" }}{{ $scheme = "HTTPS" }}{{ end }}{{ end -}}
{{- $scheme -}}
{{- end }}

{{/* Seconds of a duration such as "250ms", "5s" or "2m", rounded up. */}}
{{- define "sidewire.seconds" -}}
{{- $text := toString . -}}
{{- if hasSuffix "ms" $text }}{{ div (add (int (trimSuffix "ms" $text)) 999) 1000 }}
{{- else if hasSuffix "s" $text }}{{ int (trimSuffix "s" $text) }}
{{- else if hasSuffix "m" $text }}{{ mul (int (trimSuffix "m" $text)) 60 }}
{{- else if hasSuffix "h" $text }}{{ mul (int (trimSuffix "h" $text)) 3600 }}
{{- else }}{{ fail (printf "%q is not a duration such as \"5s\"" $text) }}{{ end -}}
{{- end }}

{{/* How long the end of a node takes at most: an app's pod adds it to its own terminationGracePeriodSeconds. */}}
{{- define "sidewire.drainSeconds" -}}
{{- $config := include "sidewire.config" . | fromJson -}}
{{- $drain := include "sidewire.seconds" (dig "client" "drain" "5s" $config) | int -}}
{{- $publish := include "sidewire.seconds" (dig "bus" "publish_timeout" "2s" $config) | int -}}
{{- add (mul 2 $drain) $publish 1 -}}
{{- end }}
