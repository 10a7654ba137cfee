package manifests

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// The file that is applied by itself and the base's are one file: kustomize reads nothing outside of its directories.
func TestPlainIsBase(t *testing.T) {
	if diff := cmp.Diff(read(t, "conf/kustomize/base/ip-masq-agent.yaml"), read(t, "conf/ip-masq-agent.yaml")); diff != "" {
		t.Errorf("cp conf/ip-masq-agent.yaml conf/kustomize/base/ makes them equal again\n%s", diff)
	}
	same(t, kustomize(t, "base"), mustDecode(t, read(t, "conf/ip-masq-agent.yaml")))
}

func TestChartIsBase(t *testing.T) {
	same(t, kustomize(t, "base"), mustDecode(t, template(t).must(t)))
}

func TestChartIsOverlay(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join(root, "conf/kustomize/overlays"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			values, ok := overlays[e.Name()]
			if !ok {
				t.Fatal("an overlay without values: add them to the table of overlays")
			}
			same(t, kustomize(t, "overlays/"+e.Name()), mustDecode(t, template(t, values...).must(t)))
		})
	}
}

// same compares objects as the cluster understands them: the order of volumes and mounts means nothing.
func same(t *testing.T, want, got objects) {
	t.Helper()
	if diff := cmp.Diff(want, got, byName); diff != "" {
		t.Errorf("(-kustomize +other)\n%s", diff)
	}
}

var byName = cmp.Options{
	cmp.Transformer("volumes", func(list []corev1.Volume) map[string]corev1.Volume {
		return index(list, func(v corev1.Volume) string { return v.Name })
	}),
	cmp.Transformer("mounts", func(list []corev1.VolumeMount) map[string]corev1.VolumeMount {
		return index(list, func(m corev1.VolumeMount) string { return m.MountPath })
	}),
}

func index[T any](list []T, key func(T) string) map[string]T {
	m := map[string]T{}
	for _, v := range list {
		m[key(v)] = v
	}
	return m
}

// Where the image's name stands, it is the same one.
func TestOneImage(t *testing.T) {
	images := map[string]bool{}
	variants(t, func(t *testing.T, o objects) {
		if t.Name() == "TestOneImage/chart_own_image" {
			return
		}
		forEachContainer(o.daemonSet(t), func(c corev1.Container) { images[c.Image] = true })
	})
	if len(images) > 1 {
		t.Errorf("images %v: want one; it is in conf/ip-masq-agent.yaml, its copy in the base, and in the chart", images)
	}
}

func forEachContainer(ds *appsv1.DaemonSet, do func(corev1.Container)) {
	for _, c := range append(ds.Spec.Template.Spec.InitContainers, ds.Spec.Template.Spec.Containers...) {
		do(c)
	}
}
