package manifests

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// promises hold for every variant. A promise returns what is wrong, or nothing.
var promises = map[string]func(ds *appsv1.DaemonSet) string{
	"the pods are the selector's": func(ds *appsv1.DaemonSet) string {
		want := labels.Set{"k8s-app": "ip-masq-agent"} // the Kubernetes agent's, and a selector cannot be changed
		if got := labels.Set(ds.Spec.Selector.MatchLabels); got.String() != want.String() || !want.AsSelector().Matches(labels.Set(ds.Spec.Template.Labels)) {
			return got.String()
		}
		return ""
	},
	"on Linux":            func(ds *appsv1.DaemonSet) string { return is(pod(ds).NodeSelector["kubernetes.io/os"], "linux") },
	"in the node's net":   func(ds *appsv1.DaemonSet) string { return is(pod(ds).HostNetwork, true) },
	"not in its pid, ipc": func(ds *appsv1.DaemonSet) string { return is(pod(ds).HostPID || pod(ds).HostIPC, false) },
	"no token":            func(ds *appsv1.DaemonSet) string { return is(*pod(ds).AutomountServiceAccountToken, false) },
	"seccomp": func(ds *appsv1.DaemonSet) string {
		return is(pod(ds).SecurityContext.SeccompProfile.Type, corev1.SeccompProfileTypeRuntimeDefault)
	},
	"updates bit by bit": func(ds *appsv1.DaemonSet) string {
		u := ds.Spec.UpdateStrategy
		if u.RollingUpdate == nil || u.RollingUpdate.MaxSurge != nil {
			return "no rolling update, or a surge: two agents on one node"
		}
		return is(u.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	},
	"only the agent has capabilities, and only three": func(ds *appsv1.DaemonSet) string {
		return containers(ds, func(c corev1.Container) string {
			caps := c.SecurityContext.Capabilities
			if !slices.Equal(caps.Drop, []corev1.Capability{"ALL"}) {
				return "drops not all"
			}
			if c.Name == agent {
				return is(len(caps.Add), 3) + is(slices.Equal(caps.Add, []corev1.Capability{"NET_ADMIN", "NET_RAW", "SYS_CHROOT"}), true)
			}
			if len(caps.Add) > 0 && !slices.Equal(caps.Add, []corev1.Capability{"DAC_OVERRIDE"}) {
				return "more than the values can ask for"
			}
			return ""
		})
	},
	"no privileges": func(ds *appsv1.DaemonSet) string {
		return containers(ds, func(c corev1.Container) string {
			s := c.SecurityContext
			return is(s.Privileged != nil && *s.Privileged, false) + is(*s.AllowPrivilegeEscalation, false) + is(*s.ReadOnlyRootFilesystem, true)
		})
	},
	"requests, and a memory limit": func(ds *appsv1.DaemonSet) string {
		return containers(ds, func(c corev1.Container) string {
			r := c.Resources
			if r.Requests.Cpu().IsZero() || r.Requests.Memory().IsZero() || r.Limits.Memory().IsZero() {
				return "incomplete"
			}
			return is(r.Limits.Cpu().IsZero(), true)
		})
	},
	"probes of every daemon": func(ds *appsv1.DaemonSet) string {
		for _, c := range pod(ds).Containers {
			if probePath(c.LivenessProbe) != "/livez" || probePath(c.ReadinessProbe) != "/readyz" || probePath(c.StartupProbe) != "/livez" {
				return c.Name
			}
			if c.StartupProbe.PeriodSeconds != 1 {
				return c.Name + " is asked too seldom while it starts"
			}
		}
		return ""
	},
	"mounts and volumes belong together": func(ds *appsv1.DaemonSet) string {
		unused := index(pod(ds).Volumes, func(v corev1.Volume) string { return v.Name })
		wrong := containers(ds, func(c corev1.Container) string {
			for _, m := range c.VolumeMounts {
				if !slices.ContainsFunc(pod(ds).Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
					return "no volume " + m.Name
				}
				delete(unused, m.Name)
			}
			return ""
		})
		for name := range unused {
			wrong += "nobody mounts " + name
		}
		return wrong
	},
	"host paths exist or are made": func(ds *appsv1.DaemonSet) string {
		for _, v := range pod(ds).Volumes {
			if v.HostPath != nil && (v.HostPath.Type == nil || *v.HostPath.Type == "") {
				return v.Name
			}
		}
		return ""
	},
	"only what is needed can be written": func(ds *appsv1.DaemonSet) string {
		writable := map[string][]string{
			agent:   {"/run/ip-masq-agent", "/var/lib/ip-masq-agent", "/run/xtables.lock"},
			"watch": {"/opt/cni/bin", "/etc/cni", "/run/ip-masq-agent"},
		}
		return containers(ds, func(c corev1.Container) string {
			for _, m := range c.VolumeMounts {
				if !m.ReadOnly && !slices.Contains(writable[c.Name], m.MountPath) {
					return m.MountPath
				}
			}
			return ""
		})
	},
	"the host's root": func(ds *appsv1.DaemonSet) string {
		m := mount(ds, agent, "/host")
		if m == nil || m.MountPropagation == nil || hostPath(ds, m.Name) != "/" {
			return "not mounted"
		}
		return is(m.ReadOnly, true) + is(*m.MountPropagation, corev1.MountPropagationHostToContainer) + is(container(ds, agent).Args[0], "--host-root=/host")
	},
	"shared places have the host's names": func(ds *appsv1.DaemonSet) string {
		for _, path := range []string{"/run/ip-masq-agent", "/var/lib/ip-masq-agent", "/run/xtables.lock"} {
			if m := mount(ds, agent, path); m == nil || hostPath(ds, m.Name) != path {
				return path
			}
		}
		return ""
	},
	"the optional ConfigMap": func(ds *appsv1.DaemonSet) string {
		m := mount(ds, agent, "/etc/config")
		if m == nil || m.SubPath != "" {
			return "not mounted, or so that it never changes"
		}
		v := volume(ds, m.Name)
		if v.Projected == nil || len(v.Projected.Sources) != 2 {
			return "another volume"
		}
		for i, items := range [][]corev1.KeyToPath{{{Key: "config", Path: "ip-masq-agent"}}, nil} {
			cm := v.Projected.Sources[i].ConfigMap
			if cm == nil || cm.Name != "ip-masq-agent" || cm.Optional == nil || !*cm.Optional || !slices.Equal(cm.Items, items) {
				return "another source"
			}
		}
		return ""
	},
	"nothing comes before the agent": func(ds *appsv1.DaemonSet) string { return is(len(pod(ds).InitContainers), 0) },
	"the agent needs no command":     func(ds *appsv1.DaemonSet) string { return is(len(container(ds, agent).Command), 0) },
}

func TestPromises(t *testing.T) {
	variants(t, func(t *testing.T, o objects) {
		ds := o.daemonSet(t)
		for name, broken := range promises {
			if what := broken(ds); what != "" {
				t.Errorf("%s: %s", name, what)
			}
		}
	})
}

// What holds with the plugin only.
func TestInstalls(t *testing.T) {
	ds := kustomize(t, "base").daemonSet(t)
	for what, broken := range map[string]string{
		"label":       is(pod(ds).NodeSelector["beta.kubernetes.io/masq-agent-ds-ready"], "true"),
		"tolerations": is(len(pod(ds).Tolerations), 1) + is(pod(ds).Tolerations[0], corev1.Toleration{Operator: corev1.TolerationOpExists}),
		"priority":    is(pod(ds).PriorityClassName, "system-node-critical"),
		"watch":       is(strings.Join(container(ds, "watch").Command[:2], " "), "/ip-masq-installer watch"),
		"netns":       is(hostPath(ds, mount(ds, agent, "/run/netns").Name), "/run/netns") + is(*mount(ds, agent, "/run/netns").MountPropagation, corev1.MountPropagationHostToContainer),
		"cache":       is(hostPath(ds, mount(ds, agent, "/var/lib/cni").Name), "/var/lib/cni") + is(mount(ds, agent, "/var/lib/cni").ReadOnly, true),
		"bin":         is(hostPath(ds, mount(ds, "watch", "/opt/cni/bin").Name), "/opt/cni/bin"),
		"conf":        is(hostPath(ds, mount(ds, "watch", "/etc/cni").Name), "/etc/cni"),
		"xtables":     is(*volume(ds, mount(ds, agent, "/run/xtables.lock").Name).HostPath.Type, corev1.HostPathFileOrCreate),
	} {
		if broken != "" {
			t.Errorf("%s: %s", what, broken)
		}
	}
	for _, c := range pod(ds).Containers {
		for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if host := probeHost(p); host != "127.0.0.1" {
				t.Errorf("%s is probed at %q: want loopback, where it listens", c.Name, host)
			}
		}
	}
}

func TestSourcesAll(t *testing.T) {
	ds := kustomize(t, "overlays/sources-all").daemonSet(t)
	if len(pod(ds).Containers) != 1 {
		t.Errorf("more than the agent: %v", pod(ds).Containers)
	}
	if args := container(ds, agent).Args; !slices.Contains(args, "--sources=all") {
		t.Errorf("args %q", args)
	}
	for _, v := range pod(ds).Volumes {
		if v.HostPath != nil && strings.Contains(v.HostPath.Path, "cni") {
			t.Errorf("touches %s", v.HostPath.Path)
		}
	}
}

func TestMetrics(t *testing.T) {
	o := kustomize(t, "overlays/metrics")
	ds := o.daemonSet(t)
	service, ok := o["Service/kube-system/ip-masq-agent-metrics"].(*corev1.Service)
	if !ok {
		t.Fatal("no Service")
	}
	if !labels.Set(service.Spec.Selector).AsSelector().Matches(labels.Set(ds.Spec.Template.Labels)) {
		t.Errorf("the Service selects %v", service.Spec.Selector)
	}
	ports := map[string]int32{}
	for _, c := range pod(ds).Containers {
		for _, p := range c.Ports {
			ports[p.Name] = p.ContainerPort
		}
		for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if probeHost(p) != "" {
				t.Errorf("%s is probed at %q, but listens on the node's address", c.Name, probeHost(p))
			}
		}
	}
	for _, p := range service.Spec.Ports {
		if ports[p.TargetPort.StrVal] != p.Port {
			t.Errorf("Service port %s: %d, the container's %d", p.Name, p.Port, ports[p.TargetPort.StrVal])
		}
	}
}
