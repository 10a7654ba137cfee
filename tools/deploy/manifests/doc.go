// Package manifests tests what conf/ has for clusters: it renders every variant with kubectl and helm, decodes the objects as
// strictly as an API server, and checks what they promise. It is a module of its own, so that the Kubernetes types stay out of
// the project's.
package manifests
