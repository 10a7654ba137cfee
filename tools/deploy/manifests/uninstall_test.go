package manifests

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// The file that is applied by itself and the overlay's are one file.
func TestUninstallIsOverlay(t *testing.T) {
	if diff := cmp.Diff(read(t, "conf/kustomize/overlays/uninstall/uninstall.yaml"), read(t, "conf/uninstall.yaml")); diff != "" {
		t.Errorf("cp conf/uninstall.yaml conf/kustomize/overlays/uninstall/ makes them equal again\n%s", diff)
	}
}

// What the documented commands leave in the cluster: the DaemonSet of the same name, which does the opposite.
func TestUninstallReplaces(t *testing.T) {
	s, env := startAPIServer(t)
	dir := workdir(t)
	kubectlIn(t, dir, env, "kubectl apply -f conf/ip-masq-agent.yaml").must(t)
	kubectlIn(t, dir, env, "kubectl apply -f conf/uninstall.yaml").must(t)
	ds := s.decode(t, daemonSetPath).daemonSet(t)
	ds.Annotations = nil // kubectl's own
	same(t, kustomize(t, "overlays/uninstall"), objects{"DaemonSet/kube-system/ip-masq-agent": ds})
	kubectlIn(t, dir, env, "kubectl apply -f conf/ip-masq-agent.yaml").must(t) // and back
	ds = s.decode(t, daemonSetPath).daemonSet(t)
	ds.Annotations = nil
	same(t, kustomize(t, "base"), objects{"DaemonSet/kube-system/ip-masq-agent": ds})
}

// What uninstalls has what the agent and the installer have together, and no more; it goes to every node, and to all at once.
func TestUninstall(t *testing.T) {
	ds, installed := kustomize(t, "overlays/uninstall").daemonSet(t), kustomize(t, "base").daemonSet(t)
	c := container(ds, agent)
	promised := []string{
		"the pods are the selector's", "on Linux", "in the node's net", "not in its pid, ipc", "no token", "seccomp", "updates bit by bit",
		"only the agent has capabilities, and only three", "no privileges", "requests, and a memory limit", "probes of every daemon",
		"mounts and volumes belong together", "host paths exist or are made", "the optional ConfigMap", "the agent needs no command",
	}
	for _, name := range promised {
		if what := promises[name](ds); what != "" {
			t.Errorf("%s: %s", name, what)
		}
	}
	for what, broken := range map[string]string{
		"image":         is(c.Image, container(installed, agent).Image),
		"command":       is(c.Args[0], "uninstall"),
		"containers":    is(len(pod(ds).Containers), 1),
		"every node":    is(len(pod(ds).NodeSelector), 1),
		"all at once":   is(ds.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.StrVal, "100%"),
		"the name":      is(ds.Name, installed.Name),
		"host's volume": is(cmp.Diff(hostPaths(installed), hostPaths(ds)), ""),
	} {
		if broken != "" {
			t.Errorf("%s: %s", what, broken)
		}
	}
	writable := []string{"/run/ip-masq-agent", "/var/lib/ip-masq-agent", "/run/xtables.lock", "/etc/cni", "/opt/cni/bin"}
	for _, m := range c.VolumeMounts {
		if m.ReadOnly == slices.Contains(writable, m.MountPath) {
			t.Errorf("%s: read-only %v", m.MountPath, m.ReadOnly)
		}
	}
	help := helpOf(t, "ip-masq-agent", "uninstall")
	for _, flag := range regexp.MustCompile(`--[a-z-]+`).FindAllString(strings.Join(c.Args, " ")+read(t, chart+"/templates/uninstall.yaml"), -1) {
		if !strings.Contains(help, flag) {
			t.Errorf("uninstall does not know %s", flag)
		}
	}
}

func hostPaths(ds *appsv1.DaemonSet) map[string]corev1.HostPathVolumeSource {
	paths := map[string]corev1.HostPathVolumeSource{}
	for _, v := range pod(ds).Volumes {
		if v.HostPath != nil {
			paths[v.Name] = *v.HostPath
		}
	}
	return paths
}

// With the hook, helm uninstall leaves the DaemonSet that cleans the nodes; without it, nothing.
func TestUninstallHook(t *testing.T) {
	const hook = "helm.sh/hook: post-delete"
	if text := template(t).must(t); strings.Contains(text, hook) {
		t.Errorf("there is a hook that nobody asked for:\n%s", text)
	}
	text := template(t, "--set=uninstall.hook=true,uninstall.wait=false", "--show-only=templates/uninstall.yaml").must(t)
	ds := mustDecode(t, text).daemonSet(t)
	if ds.Annotations["helm.sh/hook"] != "post-delete" || !slices.Contains(container(ds, agent).Args, "--wait=false") {
		t.Errorf("not a hook that does not wait:\n%s", text)
	}
	if text := template(t, "--set=uninstall.enabled=true,uninstall.hook=true").must(t); strings.Contains(text, hook) {
		t.Errorf("a release that uninstalls has the hook too:\n%s", text)
	}
}

// The values of a place that is not the usual one reach the mounts.
func TestUninstallPlaces(t *testing.T) {
	ds := mustDecode(t, template(t, "--set=uninstall.enabled=true,cni.binDir=/a/bin,cni.confDir=/b/c/nets").must(t)).daemonSet(t)
	if hostPath(ds, "cni-bin") != "/a/bin" || hostPath(ds, "cni-conf") != "/b/c" || !slices.Contains(container(ds, agent).Args, "--cni-conf-dir=/etc/cni/nets") {
		t.Errorf("%v %q", hostPaths(ds), container(ds, agent).Args)
	}
}
