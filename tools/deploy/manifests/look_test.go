package manifests

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// agent is the agent's container.
const agent = "ip-masq-agent"

// is returns what is wrong with a value, or nothing.
func is[T comparable](got, want T) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("%v, want %v ", got, want)
}

func pod(ds *appsv1.DaemonSet) *corev1.PodSpec { return &ds.Spec.Template.Spec }

// containers asks the same of all and returns the answers of those that are wrong.
func containers(ds *appsv1.DaemonSet, broken func(corev1.Container) string) string {
	var all string
	forEachContainer(ds, func(c corev1.Container) {
		if what := broken(c); what != "" {
			all += c.Name + ": " + what + " "
		}
	})
	return all
}

// container returns the one of a name, an empty one when there is none.
func container(ds *appsv1.DaemonSet, name string) *corev1.Container {
	found := &corev1.Container{Args: []string{""}, Command: []string{"", ""}}
	forEachContainer(ds, func(c corev1.Container) {
		if c.Name == name {
			found = &c
		}
	})
	return found
}

func mount(ds *appsv1.DaemonSet, name, path string) *corev1.VolumeMount {
	for _, m := range container(ds, name).VolumeMounts {
		if m.MountPath == path {
			return &m
		}
	}
	return nil
}

func volume(ds *appsv1.DaemonSet, name string) *corev1.Volume {
	for _, v := range pod(ds).Volumes {
		if v.Name == name {
			return &v
		}
	}
	return nil
}

func hostPath(ds *appsv1.DaemonSet, name string) string {
	if v := volume(ds, name); v != nil && v.HostPath != nil {
		return v.HostPath.Path
	}
	return ""
}

func probeHost(p *corev1.Probe) string {
	if p == nil || p.HTTPGet == nil {
		return "no probe"
	}
	return p.HTTPGet.Host
}

func probePath(p *corev1.Probe) string {
	if p == nil || p.HTTPGet == nil {
		return "no probe"
	}
	return p.HTTPGet.Path
}
