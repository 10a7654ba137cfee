{{- define "image" -}}
image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{/* Whether the plugin is this chart's business. */}}
{{- define "installs" -}}
{{- if and .Values.installer.enabled (eq .Values.agent.sources "pods") }}true{{ end }}
{{- end }}

{{/* The address to listen on, without the port. The brackets are for IPv6, and do no harm to IPv4. */}}
{{- define "address" -}}
{{- if .Values.metrics.enabled }}[$(NODE_IP)]{{ else }}127.0.0.1{{ end }}
{{- end }}

{{/* Without a host the kubelet asks the pod's address, which is the node's. */}}
{{- define "probeHost" -}}
{{- if not .Values.metrics.enabled }}
host: 127.0.0.1
{{- end }}
{{- end }}

{{- define "nodeIP" -}}
{{- if .Values.metrics.enabled }}
env:
  - name: NODE_IP
    valueFrom:
      fieldRef:
        fieldPath: status.hostIP
{{- end }}
{{- end }}

{{/* The parent of the configuration directory is mounted at /etc/cni. One that is not called net.d there has to be named. */}}
{{- define "confDirFlag" -}}
{{- $base := base .Values.cni.confDir }}
{{- if ne $base "net.d" }}
- --cni-conf-dir=/etc/cni/{{ $base }}
{{- end }}
{{- end }}

{{- define "agentArgs" -}}
- --host-root=/host
{{- with .Values.agent }}
{{- if ne .sources "pods" }}
- --sources={{ .sources }}
{{- end }}
{{- if ne .backend "auto" }}
- --backend={{ .backend }}
{{- end }}
{{- if .enableIPv6 }}
- --enable-ipv6
{{- end }}
{{- if ne .masqChain "IP-MASQ-AGENT" }}
- --masq-chain={{ .masqChain }}
{{- end }}
{{- if .nomasqAllReservedRanges }}
- --nomasq-all-reserved-ranges
{{- end }}
{{- if not .randomFully }}
- --random-fully=false
{{- end }}
{{- with .toPorts }}
- --to-ports={{ . }}
{{- end }}
{{- with .verbosity }}
- --v={{ . }}
{{- end }}
{{- end }}
{{- if eq .Values.agent.sources "pods" }}
{{- include "confDirFlag" . }}
{{- end }}
{{- if or .Values.metrics.enabled (ne (int .Values.metrics.port) 10278) }}
- --metrics-bind-address={{ include "address" . }}:{{ .Values.metrics.port }}
{{- end }}
{{- with .Values.agent.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What watch is told beside where to listen. */}}
{{- define "installerFlags" -}}
{{- include "confDirFlag" . }}
{{- with .Values.installer }}
{{- with .confFile }}
- {{ printf "--conf-file=%s" . | quote }}
{{- end }}
{{- with .entry }}
- {{ printf "--entry=%s" (toJson .) | quote }}
{{- end }}
{{- if .allowIPMasq }}
- --allow-ipmasq
{{- end }}
{{- if .force }}
- --force
{{- end }}
{{- end }}
{{- end }}

{{- define "installerRest" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop:
      - ALL
    {{- with .Values.installer.capabilities }}
    add:
      {{- toYaml . | nindent 6 }}
    {{- end }}
resources:
  {{- toYaml .Values.installer.resources | nindent 2 }}
volumeMounts:
  - name: cni-bin
    mountPath: /opt/cni/bin
  - name: cni-conf
    mountPath: /etc/cni
  - name: run
    mountPath: /run/ip-masq-agent
{{- end }}
