package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

// strict refuses unknown fields, fields given twice, and kinds that the project has no business with.
var strict = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// decodeOne is strict, but for the objects of the Prometheus operator, whose types are in no module of Kubernetes. Their
// contents are tested in package monitoring.
func decodeOne(doc []byte) (runtime.Object, error) {
	if bytes.Contains(doc, []byte("monitoring.coreos.com/v1")) {
		var u unstructured.Unstructured
		err := sigsyaml.UnmarshalStrict(doc, &u.Object)
		return &u, err
	}
	object, kind, err := strict.Decode(doc, nil, nil)
	if err == nil {
		object.GetObjectKind().SetGroupVersionKind(*kind)
	}
	return object, err
}

// objects are the decoded documents of a YAML stream, by kind and name.
type objects map[string]runtime.Object

func decode(text string) (objects, error) {
	found := objects{}
	docs := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(withoutComments(doc))) == 0 {
			continue
		}
		object, err := decodeOne(doc)
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, doc)
		}
		found[object.GetObjectKind().GroupVersionKind().Kind+"/"+nameOf(object)] = object
	}
}

func mustDecode(t *testing.T, text string) objects {
	t.Helper()
	found, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// daemonSet returns the one that has to be there.
func (o objects) daemonSet(t *testing.T) *appsv1.DaemonSet {
	t.Helper()
	ds, ok := o["DaemonSet/kube-system/ip-masq-agent"].(*appsv1.DaemonSet)
	if !ok {
		t.Fatalf("no DaemonSet kube-system/ip-masq-agent in %v", o)
	}
	return ds
}

func kustomize(t *testing.T, dir string) objects {
	t.Helper()
	return mustDecode(t, run(t, kubectl(t), "kustomize", filepath.Join("conf/kustomize", dir)).must(t))
}

const chart = "conf/helm/ip-masq-agent"

// template renders the chart, given flags such as --set.
func template(t *testing.T, flags ...string) outcome {
	t.Helper()
	args := append([]string{"template", "ip-masq-agent", chart, "--namespace=kube-system"}, flags...)
	return run(t, helm(t), args...)
}

// overlays are what conf/kustomize/overlays has, each with the values that make the chart the same.
var overlays = map[string][]string{
	"no-label":    {"--set=requireNodeLabel=false"},
	"sources-all": {"--set=agent.sources=all"},
	"uninstall":   {"--set=uninstall.enabled=true"},
	"metrics":     {"--set=metrics.enabled=true"},
	"prometheus-operator": {
		"--set=metrics.enabled=true,metrics.podMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true",
	},
	"k3s": {
		"--set=cni.binDir=/var/lib/rancher/k3s/data/cni",
		"--set=cni.confDir=/var/lib/rancher/k3s/agent/etc/cni/net.d",
	},
}

// variants calls a test for all that can be applied: the plain manifest, the base, every overlay, and the chart in its shapes.
func variants(t *testing.T, test func(t *testing.T, o objects)) {
	t.Helper()
	variant := func(name string, render func(t *testing.T) objects) {
		t.Run(name, func(t *testing.T) { test(t, render(t)) })
	}
	variant("plain", func(t *testing.T) objects { return mustDecode(t, read(t, "conf/ip-masq-agent.yaml")) })
	variant("base", func(t *testing.T) objects { return kustomize(t, "base") })
	variant("chart", func(t *testing.T) objects { return mustDecode(t, template(t).must(t)) })
	for name, values := range overlays {
		if name == "uninstall" {
			continue // what it promises is the opposite: see TestUninstall
		}
		variant("overlay "+name, func(t *testing.T) objects { return kustomize(t, "overlays/"+name) })
		variant("chart "+name, func(t *testing.T) objects { return mustDecode(t, template(t, values...).must(t)) })
	}
	for name, values := range accepted {
		variant("chart "+name, func(t *testing.T) objects { return mustDecode(t, template(t, values...).must(t)) })
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func withoutComments(doc []byte) []byte {
	var kept [][]byte
	for line := range bytes.Lines(doc) {
		if !bytes.HasPrefix(line, []byte("#")) {
			kept = append(kept, line)
		}
	}
	return bytes.Join(kept, nil)
}

func nameOf(object runtime.Object) string {
	m, err := meta.Accessor(object)
	if err != nil {
		return "?"
	}
	return m.GetNamespace() + "/" + m.GetName()
}
