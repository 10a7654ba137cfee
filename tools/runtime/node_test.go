package runtime

import (
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

//go:embed containerd.toml
var containerdConfig []byte

const (
	confFile   = "etc/cni/net.d/10-pods.conflist"
	configFile = "etc/config/ip-masq-agent"
	records    = "run/ip-masq-agent/attachments"
)

// node is a machine with a container runtime, our programs in /opt/ip-masq, and two hosts outside that remember.
type node struct {
	*machine
	setup
	cri               *client
	containerd, agent *process
	internet, corp    *recorder
	deployed          uint32 // pods of manifests so far
}

// newNode makes a node on which everything is installed and nothing of ours was ever started.
func newNode(t *testing.T, s setup) *node {
	t.Helper()
	disk := newDisk(t)
	for _, program := range programs() {
		writeFile(t, filepath.Join(disk, "opt/ip-masq", program), readFile(t, testkit.Program(program)), 0o755)
	}
	for _, plugin := range []string{"bridge", "host-local", "loopback"} {
		writeFile(t, filepath.Join(disk, "opt/cni/bin", plugin), readFile(t, filepath.Join("bin/tools", plugin)), 0o755)
	}
	writeFile(t, filepath.Join(disk, confFile), clusterNetwork(t, s.cniVersion), 0o644)
	writeFile(t, filepath.Join(disk, "etc/containerd/config.toml"), containerdConfig, 0o644)
	writeFile(t, filepath.Join(disk, "image.tar"), image(t, "192.0.2.2:7000", "10.99.0.2:7000"), 0o644)
	return (&node{setup: s}).boot(t, disk)
}

// boot starts the node from a disk: the runtime, as its service manager would, and not the agent.
func (n *node) boot(t *testing.T, disk string) *node {
	t.Helper()
	fresh := &node{machine: boot(t, disk), setup: n.setup}
	fresh.internet, fresh.corp = record(t, fresh.Internet), record(t, fresh.Corp)
	fresh.startContainerd(t)
	return fresh
}

func (n *node) startContainerd(t *testing.T) {
	t.Helper()
	n.containerd = n.start(t, "PATH="+n.programs+":"+nodePATH, "containerd", "--config=/etc/containerd/config.toml")
	if n.cri == nil {
		n.cri = dial(t, n.path("run/containerd/containerd.sock"), n.cgroup())
	}
	netnstest.Eventually(t, 20*time.Second, "containerd answers, and has loaded a network", func() bool {
		if n.containerd.ended() {
			t.Fatalf("containerd ended")
		}
		return n.cri.networkReady() == nil
	})
}

func (n *node) importImage(t *testing.T) {
	t.Helper()
	n.run(t, "ctr", "--namespace=k8s.io", "images", "import", "--no-unpack", "/image.tar")
}

// install runs the installer as a user would, with the backend in our entry.
func (n *node) install(t *testing.T) {
	t.Helper()
	n.run(t, "/opt/ip-masq/ip-masq-installer", "install", `--entry={"type": "ip-masq", "backend": "`+n.backend+`"}`)
}

// configure replaces the agent's configuration as an editor does.
func (n *node) configure(t *testing.T, config string) {
	t.Helper()
	file := filepath.Join(n.disk, configFile)
	writeFile(t, file+".new", []byte(config), 0o644)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func (n *node) startAgent(t *testing.T) {
	t.Helper()
	n.agent = n.start(t, "/opt/ip-masq/ip-masq-agent", "--backend="+n.backend)
	n.awaitReady(t, n.agent)
}

// awaitReady waits until the agent says that it has read its rules back.
func (m *machine) awaitReady(t *testing.T, agent *process) {
	t.Helper()
	netnstest.Eventually(t, 10*time.Second, "the agent is ready", func() bool {
		if agent.ended() {
			t.Fatalf("the agent ended:\n%s", agent.output())
		}
		return m.ready() == nil
	})
}

func (m *machine) ready() error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DialContext: m.DialContext, DisableKeepAlives: true}}
	response, err := client.Get("http://127.0.0.1:10278/readyz")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return errors.New(string(body))
	}
	return nil
}

// records are the names of the attachment records.
func (n *node) records() []string {
	entries, _ := os.ReadDir(n.path(records))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// hasRule tells whether anything in the kernel knows the address, whichever program put it there.
func (n *node) hasRule(t *testing.T, address string) bool {
	t.Helper()
	for _, word := range strings.FieldsFunc(n.run(t, "nft", "list", "ruleset"), func(r rune) bool { return strings.ContainsRune(" ,\t\n{}", r) }) {
		if word == address {
			return true
		}
	}
	return false
}

// clusterNetwork is the example's network without our entry: what a cluster has before it meets us.
func clusterNetwork(t *testing.T, version string) []byte {
	t.Helper()
	var list map[string]any
	if err := json.Unmarshal(readFile(t, "conf/10-bridge-ip-masq.conflist"), &list); err != nil {
		t.Fatal(err)
	}
	list["cniVersion"] = version
	list["plugins"] = list["plugins"].([]any)[:1]
	return document(t, list)
}
