{{/* The configuration as JSON: what the mode needs, and over it what the values say. */}}
{{- define "sidewire.config" -}}
{{- $name := include "sidewire.fullname" . -}}
{{- $anywhere := "0.0.0.0" -}}
{{- $app := dict "listen" (printf "127.0.0.1:%v" .Values.app.port) -}}
{{- $client := dict "listen" (printf "127.0.0.1:%v" .Values.client.port) -}}
{{- $admin := dict "listen" (printf "%s:%v" $anywhere .Values.admin.port) -}}
{{- if or .Values.client.expose (eq .Values.mode "gateway") -}}
{{- $_ := set $client "listen" (printf "%s:%v" $anywhere .Values.client.port) -}}
{{- end -}}
{{- if eq .Values.mode "daemonset" -}}
{{- if eq .Values.daemonset.access "socket" -}}
{{- $_ := set $app "listen" (printf "unix:%s/app.sock" .Values.daemonset.socketDirectory) -}}
{{- else -}}
{{- $_ := set $app "listen" (printf "%s:%v" $anywhere .Values.app.port) -}}
{{- end -}}
{{- else if .Values.app.expose -}}
{{- $service := printf "%s-app" $name -}}
{{- $_ := set $app "listen" (printf "%s:%v" $anywhere .Values.app.port) -}}
{{- $_ := set $app "allowed_hosts" (list $service (printf "%s.%s" $service .Release.Namespace) (printf "%s.%s.svc" $service .Release.Namespace) (printf "%s.%s.svc.cluster.local" $service .Release.Namespace)) -}}
{{- end -}}
{{- $base := dict "app" $app "client" $client "admin" $admin "log" (dict "dir" "/var/lib/sidewire/log") "telemetry" (dict "log_format" "json") -}}
{{- $config := mergeOverwrite $base (deepCopy .Values.config) -}}
{{- $keys := list -}}
{{- range .Values.secrets }}{{ $keys = append $keys .key }}{{ end -}}
{{- if not (hasPrefix "127." (toString $config.client.listen)) -}}
{{- $auth := default dict $config.auth -}}
{{- $asked := or $config.client.allow_anonymous $auth.jwks_url $auth.public_key_file $auth.secret_file (dig "webhook" "url" "" $auth) -}}
{{- range $keys }}{{ if has . (list "auth.secret" "auth.secret_file" "auth.public_key_file") }}{{ $asked = true }}{{ end }}{{ end -}}
{{- if not $asked -}}
{{- fail "clients would be served without being asked who they are: configure config.auth, or set config.client.allow_anonymous: true to serve everybody who connects" -}}
{{- end -}}
{{- end -}}
{{- toRawJson $config -}}
{{- end }}

{{/* A table of the configuration in TOML: its own keys first, then the tables below it. Takes the path of the
table and the table. JSON's strings, numbers and lists are TOML's as well. */}}
{{- define "sidewire.toml" -}}
{{- $path := index . 0 -}}
{{- $table := index . 1 -}}
{{- range $key, $value := $table -}}
{{- if not (or (kindIs "map" $value) (include "sidewire.isTables" $value)) }}
{{ include "sidewire.tomlKey" $key }} = {{ toRawJson $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := $table -}}
{{- $name := include "sidewire.tomlKey" $key -}}
{{- $inner := ternary $name (printf "%s.%s" $path $name) (eq $path "") -}}
{{- if kindIs "map" $value }}

[{{ $inner }}]
{{- include "sidewire.toml" (list $inner $value) -}}
{{- else if include "sidewire.isTables" $value -}}
{{- range $value }}

[[{{ $inner }}]]
{{- include "sidewire.toml" (list $inner .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sidewire.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end -}}
{{- end }}

{{/* Not empty for a list of tables. */}}
{{- define "sidewire.isTables" -}}
{{- if kindIs "slice" . }}{{ if . }}{{ if kindIs "map" (first .) }}yes{{ end }}{{ end }}{{ end -}}
{{- end }}

{{- define "sidewire.configText" -}}
{{- include "sidewire.toml" (list "" (include "sidewire.config" . | fromJson)) | trim }}
{{ end }}
