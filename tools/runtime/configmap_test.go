package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestConfigMapKey: a ConfigMap whose key is not config is named in the log, in /readyz and by status, in the manifest's own container,
// and the defaults are in force until there is one with that key, which takes a second.
func TestConfigMapKey(t *testing.T) {
	s := setups["distribution/nftables"]
	s.require(t)
	t.Parallel()
	n := newNode(t, s)
	n.importImage(t)
	n.importProduct(t)
	n.mountConfigMap(t, "masquerade.yaml", corpMasquerade)
	agent := n.deploy(t, installed, "--backend="+s.backend)
	const problem = "no key config, but masquerade.yaml: rename the key"
	n.awaitReason(t, problem)
	status, exit := n.exec(t, agent, "/ip-masq-agent", "status")
	for what, text := range map[string]string{"the log": n.logOf("ip-masq-agent"), "status": status} {
		if !strings.Contains(oneLine(text), problem) {
			t.Errorf("%s does not say %q (exit status %d):\n%s", what, problem, exit, text)
		}
	}
	if exit != 0 || !strings.Contains(oneLine(status), "defaults") {
		t.Errorf("status, exit status %d, does not say that the defaults are in force:\n%s", exit, status)
	}
	if text, exit := n.exec(t, agent, "/ip-masq-agent", "check"); exit != 1 || !strings.Contains(oneLine(text), problem) {
		t.Errorf("check, exit status %d:\n%s", exit, text)
	}
	n.mountConfigMap(t, "config", corpMasquerade)
	changed := time.Now()
	netnstest.Eventually(t, 5*time.Second, "the right key is in force", func() bool { return n.ready() == nil })
	if took := time.Since(changed); took > netnstest.Limit(2*time.Second) {
		t.Errorf("the right key was in force after %v", took)
	}
	if status, _ = n.exec(t, agent, "/ip-masq-agent", "status"); !strings.Contains(status, "10.99.0.0/16") {
		t.Errorf("the file is not in force:\n%s", status)
	}
	n.cri.remove(t, agent)
}

// oneLine undoes the wrapping of lines.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// mountConfigMap does what the kubelet makes of the manifest's projected volume: every key under its own name, and the key config as
// the file ip-masq-agent. An update is a new directory, to which the link ..data is moved.
func (n *node) mountConfigMap(t *testing.T, key, content string) {
	t.Helper()
	dir := filepath.Join(n.disk, filepath.Dir(configFile))
	fresh := fmt.Sprintf("..%d", time.Now().UnixNano())
	names := []string{key}
	if key == "config" {
		names = append(names, filepath.Base(configFile))
	}
	for _, name := range names {
		writeFile(t, filepath.Join(dir, fresh, name), []byte(content), 0o644)
	}
	link := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(fresh, link); err != nil {
		t.Fatal(err)
	}
	rename(t, link, filepath.Join(dir, "..data"))
	for _, name := range names {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// logOf is what a container of a manifest wrote, as the kubelet has the runtime keep it.
func (n *node) logOf(container string) string {
	data, _ := os.ReadFile(filepath.Join(n.disk, logDirectory, container+".log"))
	return string(data)
}
