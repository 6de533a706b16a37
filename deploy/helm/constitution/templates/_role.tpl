{{/* What each role is. http: it serves on 8080 and answers /healthz, /readyz, /metrics. own: what the chart sets. */}}
{{- define "constitution.facts" -}}
constitution-service: {kind: StatefulSet, http: true, own: {STATEMENT_KEY_FILE: /keys/constitution-service.jwk, SPOOL_DIRECTORY: /data/spool}}
policy-engine: {kind: StatefulSet, http: true, target: true, own: {RECORDING_DIRECTORY: /tmp}}
orchestrator: {kind: StatefulSet, http: true, target: true, own: {CLIENT_KEY_FILE: /keys/target.jwk}}
siem-forwarder: {kind: Deployment, http: true, own: {}}
assessor: {kind: Deployment, http: false, own: {CLIENT_KEY_FILE: /keys/assessor-client.jwk, ASSESSOR_KEY_FILE: /keys/assessor.jwk, EVIDENCE_DIRECTORY: /tmp/evidence}}
worker: {kind: Deployment, http: false, archive: true, own: {CLIENT_KEY_FILE: /keys/worker.jwk, EVIDENCE_DIRECTORY: /tmp/evidence, ARCHIVE_REPOSITORY: /archive}}
{{- end }}

{{- define "constitution.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}

{{- define "constitution.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "constitution.labels" -}}
app.kubernetes.io/name: constitution
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Selects the pods of a role. Arguments: root, role. */}}
{{- define "constitution.selector" -}}
app.kubernetes.io/name: constitution
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{/* The settings of a role, later ones win: of all, the chart's own, the role's. Arguments: root, role, facts. */}}
{{- define "constitution.settings" -}}
{{- $root := .root -}}
{{- $service := printf "http://%s-constitution-service:8080" (include "constitution.name" $root) -}}
{{- $engines := printf "http://%s-policy-engine:8080" (include "constitution.name" $root) -}}
{{- $own := dict "ENVIRONMENT_FILE" "/etc/constitution/environment.toml" "HOST" "0.0.0.0" -}}
{{- if .facts.http }}{{- $_ := set $own "PORT" "8080" }}{{- else }}{{- $_ := set $own "METRICS_PORT" "8080" }}{{- end }}
{{- if and (ne .role "constitution-service") (ne .role "siem-forwarder") }}{{- $_ := set $own "CONSTITUTION_SERVICE_URL" $service }}{{- end }}
{{- if eq .role "orchestrator" }}{{- $_ := set $own "POLICY_ENGINE_URL" $engines }}{{- end }}
{{- if $root.Values.authority.configMap }}{{- $_ := set $own "SSL_CERT_FILE" (printf "/authority/%s" $root.Values.authority.key) }}{{- end }}
{{- toYaml (merge (deepCopy (index $root.Values.roles .role).settings) (deepCopy .facts.own) $own (deepCopy $root.Values.settings)) }}
{{- end }}

{{- define "constitution.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.user }}
runAsGroup: {{ .Values.podSecurity.user }}
fsGroup: {{ .Values.podSecurity.user }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "constitution.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The pod of a role. Arguments: root, role, facts. */}}
{{- define "constitution.pod" -}}
{{- $root := .root -}}
{{- $given := index $root.Values.roles .role -}}
metadata:
  labels: {{- include "constitution.selector" . | nindent 4 }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ if .facts.http }}30{{ else }}60{{ end }}
  securityContext: {{- include "constitution.podSecurity" $root | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets: {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "constitution.selector" . | nindent 10 }}
  containers:
    - name: {{ .role }}
      image: {{ include "constitution.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ .role }}]
      env:
        {{- range $name, $value := include "constitution.settings" . | fromYaml }}
        - {name: {{ $name }}, value: {{ $value | toString | quote }}}
        {{- end }}
        {{- if .facts.target }}
        - name: TARGET_ID
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- end }}
      {{- with $given.secret }}
      envFrom:
        - secretRef: {name: {{ . }}}
      {{- end }}
      ports:
        - {name: http, containerPort: 8080}
      {{- if .facts.http }}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      {{- else }}
      # The metrics answer when the pollers run; a worker that cannot poll ends by itself.
      readinessProbe:
        httpGet: {path: /metrics, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      {{- end }}
      resources: {{- toYaml $given.resources | nindent 8 }}
      securityContext: {{- include "constitution.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: environment, mountPath: /etc/constitution/environment.toml, subPath: environment.toml, readOnly: true}
        {{- range $root.Values.environment.trustFiles }}
        - {name: trust, mountPath: /etc/constitution/trust/{{ . }}, subPath: {{ . }}, readOnly: true}
        {{- end }}
        - {name: certificates, mountPath: /etc/constitution/trust/certificates, readOnly: true}
        - {name: versions, mountPath: /etc/constitution/trust/versions, readOnly: true}
        - {name: inbox, mountPath: /etc/constitution/inbox, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- if $given.keys }}
        - {name: keys, mountPath: /keys, readOnly: true}
        {{- end }}
        {{- if $root.Values.authority.configMap }}
        - {name: authority, mountPath: /authority, readOnly: true}
        {{- end }}
        {{- if .facts.archive }}
        - {name: archive, mountPath: /archive}
        {{- end }}
        {{- if $given.storage }}
        - {name: data, mountPath: /data}
        {{- end }}
  volumes:
    - {name: environment, configMap: {name: {{ $root.Values.environment.configMap }}}}
    - {name: trust, configMap: {name: {{ $root.Values.environment.trust }}}}
    - {name: certificates, configMap: {name: {{ $root.Values.environment.certificates }}}}
    - {name: versions, configMap: {name: {{ $root.Values.environment.versions }}, optional: true}}
    - {name: inbox, emptyDir: {}}
    - {name: tmp, emptyDir: {}}
    {{- if $given.keys }}
    - {name: keys, secret: {secretName: {{ $given.keys }}, defaultMode: 0440}}
    {{- end }}
    {{- if $root.Values.authority.configMap }}
    - {name: authority, configMap: {name: {{ $root.Values.authority.configMap }}}}
    {{- end }}
    {{- if .facts.archive }}
    - {name: archive, persistentVolumeClaim: {claimName: {{ $root.Values.archive.claim }}}}
    {{- end }}
{{- end }}
