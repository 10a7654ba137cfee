package manifests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The documented commands, word for word, in a directory with the project's conf and somebody's config.
func TestDocumentedCommands(t *testing.T) {
	s, env := startAPIServer(t)
	s.objects["/api/v1/nodes/my-node"] = []byte(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"my-node"}}`)
	dir := workdir(t)
	for _, command := range []string{
		"kubectl apply -f conf/ip-masq-agent.yaml",
		"kubectl label nodes my-node beta.kubernetes.io/masq-agent-ds-ready=true",
		"kubectl create configmap ip-masq-agent --from-file=config --namespace=kube-system",
	} {
		kubectlIn(t, dir, env, command).must(t)
	}

	ds := s.decode(t, daemonSetPath).daemonSet(t)
	node := s.decode(t, "/api/v1/nodes/my-node")["Node//my-node"].(*corev1.Node)
	for label, value := range ds.Spec.Template.Spec.NodeSelector {
		if label != corev1.LabelOSStable && node.Labels[label] != value { // the kubelet sets that one
			t.Errorf("the DaemonSet wants the label %s=%s; the node has %v", label, value, node.Labels)
		}
	}
	config := s.decode(t, "/api/v1/namespaces/kube-system/configmaps/ip-masq-agent")["ConfigMap/kube-system/ip-masq-agent"].(*corev1.ConfigMap)
	for _, v := range ds.Spec.Template.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			for _, item := range source.ConfigMap.Items {
				if source.ConfigMap.Name != config.Name || config.Data[item.Key] != "nonMasqueradeCIDRs: [10.0.0.0/8]\n" {
					t.Errorf("the DaemonSet mounts %v; the ConfigMap is %v", source.ConfigMap, config)
				}
			}
		}
	}
}

// Whoever runs the Kubernetes agent applies this manifest over its own, and gets what a new cluster gets.
func TestApplyOverKubernetesAgent(t *testing.T) {
	s, env := startAPIServer(t)
	dir := workdir(t)
	kubectlIn(t, dir, env, "kubectl apply -f old.yaml").must(t)
	kubectlIn(t, dir, env, "kubectl apply -f conf/ip-masq-agent.yaml").must(t)
	ds := s.decode(t, daemonSetPath).daemonSet(t)
	ds.Annotations = nil // kubectl's own
	same(t, kustomize(t, "base"), objects{"DaemonSet/kube-system/ip-masq-agent": ds})
	for name, broken := range promises {
		if what := broken(ds); what != "" {
			t.Errorf("%s: %s", name, what)
		}
	}
}

func TestApplyOverlays(t *testing.T) {
	for name := range overlays {
		t.Run(name, func(t *testing.T) {
			_, env := startAPIServer(t)
			kubectlIn(t, workdir(t), env, "kubectl apply -k conf/kustomize/overlays/"+name).must(t)
		})
	}
}

// Decoder and stand-in refuse what a real server refuses; else the tests here would say nothing.
func TestStrictness(t *testing.T) {
	_, env := startAPIServer(t)
	good := read(t, "conf/ip-masq-agent.yaml")
	for what, text := range map[string]string{
		"unknown field": strings.Replace(good, "hostNetwork:", "hostNetworks:", 1),
		"wrong case":    strings.Replace(good, "readOnlyRootFilesystem:", "readOnlyRootFileSystem:", 1),
		"wrong type":    strings.Replace(good, "periodSeconds: 20", "periodSeconds: 20s", 1),
	} {
		t.Run(what, func(t *testing.T) {
			if _, err := decode(text); err == nil {
				t.Error("decoded")
			}
			dir := t.TempDir()
			write(t, filepath.Join(dir, "bad.yaml"), text)
			if o := kubectlIn(t, dir, env, "kubectl apply -f bad.yaml"); o.err == nil {
				t.Error("applied")
			}
		})
	}
	repeated := "      hostNetwork: true\n"
	if _, err := decode(strings.Replace(good, repeated, repeated+repeated, 1)); err == nil {
		t.Error("a field given twice was decoded") // kubectl takes the last one
	}
}

const daemonSetPath = "/apis/apps/v1/namespaces/kube-system/daemonsets/ip-masq-agent"

// workdir has what a user has who runs the documented commands.
func workdir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	conf, err := filepath.Abs(filepath.Join(root, "conf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(conf, filepath.Join(dir, "conf")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config"), "nonMasqueradeCIDRs: [10.0.0.0/8]\n")
	write(t, filepath.Join(dir, "old.yaml"), kubernetesAgent)
	return dir
}

// kubernetesAgent is a manifest as users of the Kubernetes agent have it.
const kubernetesAgent = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ip-masq-agent, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: ip-masq-agent}}
  template:
    metadata: {labels: {k8s-app: ip-masq-agent}}
    spec:
      hostNetwork: true
      nodeSelector: {beta.kubernetes.io/masq-agent-ds-ready: "true"}
      containers:
        - name: ip-masq-agent
          image: registry.k8s.io/networking/ip-masq-agent:v2.12.6
          args: [--masq-chain=IP-MASQ]
          securityContext: {privileged: true}
          volumeMounts: [{name: config, mountPath: /etc/config}]
      volumes:
        - name: config
          configMap: {name: ip-masq-agent, optional: true, items: [{key: config, path: ip-masq-agent}]}
`

// kubectlIn runs a command line as it is written in the documentation.
func kubectlIn(t *testing.T, dir string, env []string, command string) outcome {
	t.Helper()
	words := strings.Fields(command)
	if words[0] != "kubectl" {
		t.Fatalf("not a kubectl command: %s", command)
	}
	o := start(t, dir, env, kubectl(t), words[1:]...)
	t.Logf("$ %s\n%s%s", command, o.stdout, o.stderr)
	return o
}

func (s *apiServer) decode(t *testing.T, path string) objects {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	return mustDecode(t, string(s.objects[path]))
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
