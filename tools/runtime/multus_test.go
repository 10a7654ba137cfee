package runtime

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// The multus that runs is the real one: its plugin, and the program that its DaemonSet runs. What stands in is the API server.
const multusPrograms = "bin/tools/multus"

// TestMultus: thin multus makes its configuration with a copy of the network's list, once (as its manifest runs it) or whenever the list
// changes (with --cleanup-config-on-exit). Pods of before come behind the policy by multus's own cache, later ones by the plugin,
// whichever of the two programs starts anew, and after conf/uninstall.yaml multus has what it had.
func TestMultus(t *testing.T) {
	for name, flags := range map[string][]string{"copies once": nil, "watches": {"--cleanup-config-on-exit"}} {
		t.Run(name, func(t *testing.T) {
			s := setups["newest/nftables"]
			s.cniVersion = "1.0.0" // the newest that this multus has a list for
			s.require(t)
			for _, program := range []string{"multus", "thin_entrypoint"} {
				if !exists(filepath.Join(multusPrograms, program)) {
					if os.Getenv("CI") != "" {
						t.Fatalf("no %s; scripts/setup runtime builds it", program)
					}
					t.Skipf("no %s; scripts/setup runtime builds it", program)
				}
			}
			t.Parallel()
			n := newNode(t, s)
			n.importImage(t)
			n.importProduct(t)
			n.configure(t, corpKept)
			m := newMultusNode(t, n, flags)
			m.life(t)
		})
	}
}

// multusNode is a node whose runtime loads multus.
type multusNode struct {
	*node
	flags  []string
	multus *process
	list   []byte // before the installer came
	copied string // what multus made of it
}

const multusFile = "etc/cni/net.d/00-multus.conflist"

func newMultusNode(t *testing.T, n *node, flags []string) *multusNode {
	t.Helper()
	m := &multusNode{node: n, flags: flags, list: readFile(t, filepath.Join(n.disk, confFile))}
	for _, program := range []string{"multus", "thin_entrypoint"} {
		writeFile(t, filepath.Join(n.disk, "opt/multus", program), readFile(t, filepath.Join(multusPrograms, program)), 0o755)
	}
	secrets := n.path("run/secrets/kubernetes.io/serviceaccount")
	writeFile(t, filepath.Join(secrets, "token"), []byte("t"), 0o600)
	writeFile(t, filepath.Join(secrets, "ca.crt"), []byte("c"), 0o600)
	n.serveAPI(t)
	m.startMultus(t)
	m.copied = m.delegates(t)
	return m
}

// delegates are what multus calls. When it starts beside the installed plugin it also takes the plugin's capabilities for its own, which
// stay until it starts again, and do nothing.
func (m *multusNode) delegates(t *testing.T) string {
	t.Helper()
	var conf struct {
		Plugins []struct{ Delegates json.RawMessage }
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(m.disk, multusFile)), &conf); err != nil || len(conf.Plugins) != 1 {
		t.Fatalf("%s: %v, %+v", multusFile, err, conf)
	}
	return string(conf.Plugins[0].Delegates)
}

// startMultus runs what multus's DaemonSet runs.
func (m *multusNode) startMultus(t *testing.T) {
	t.Helper()
	m.multus = m.start(t, append([]string{
		"KUBERNETES_SERVICE_PROTOCOL=http", "KUBERNETES_SERVICE_HOST=::1", "KUBERNETES_SERVICE_PORT=6443",
		"/opt/multus/thin_entrypoint", "--multus-bin-file=/opt/multus/multus", "--multus-conf-file=auto", "--multus-autoconfig-dir=/etc/cni/net.d",
		"--cni-conf-dir=/etc/cni/net.d", "--cni-bin-dir=/opt/cni/bin", "--multus-cni-conf-dir=/etc/cni/multus/net.d",
	}, m.flags...)...)
	netnstest.Eventually(t, 20*time.Second, "multus has written its configuration", func() bool {
		if m.multus.ended() {
			t.Fatalf("multus ended:\n%s", m.multus.output())
		}
		return strings.Contains(m.multus.output(), "multus config file is created")
	})
	time.Sleep(time.Second) // until the runtime has loaded it
}

func (m *multusNode) life(t *testing.T) {
	t.Helper()
	before := m.cri.run(t, "before", 0)
	m.internet.first(t, "before", "sandbox", "app")
	m.internet.saw(t, "before", time.Time{}, before.address)

	agent := m.deploy(t, installed, "--backend="+m.backend)
	m.awaitDeployed(t)
	m.awaitEntries(t)
	since := time.Now()
	m.talks(t, before, since, own)
	one := m.startPod(t, "one", own)
	if got := m.records(); len(got) != 2 {
		t.Errorf("records %q, want those of two pods", got)
	}
	status, _ := m.exec(t, agent, "/ip-masq-agent", "status", "--output=json")
	var document struct {
		Pods struct{ Attached, Uncovered []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(status), &document); err != nil || len(document.Pods.Attached) != 2 || len(document.Pods.Uncovered) != 0 {
		t.Errorf("status: %v\n%s", err, status)
	}

	m.multus.stop(syscall.SIGKILL)
	m.startMultus(t)
	m.awaitEntries(t)
	two := m.startPod(t, "two", own)
	m.awaitQuiet(t)

	// Multus hands no annotations on, so this one has no effect, as docs/compatibility.md says.
	annotated := m.cri.runWith(t, "annotated", 0, map[string]string{"ip-masq-agent/masquerade": "false"})
	m.internet.first(t, "annotated", "sandbox", "app")
	m.internet.saw(t, "annotated", time.Time{}, nodeToInternet)
	m.cri.remove(t, annotated.sandbox)

	m.cri.remove(t, agent)
	remover := m.deploy(t, uninstalled)
	m.awaitReason(t, "2 pods") // the first one can be deleted without the plugin
	bare := m.cri.run(t, "bare", 0)
	m.internet.first(t, "bare", "sandbox", "app")
	m.internet.saw(t, "bare", time.Time{}, bare.address)
	for _, p := range []pod{before, one, two} {
		m.talks(t, p, since, own)
		m.cri.remove(t, p.sandbox)
	}
	m.awaitDeployed(t)
	l := &leaver{node: m.node, before: m.list}
	l.wantClean(t)
	if got := m.delegates(t); got != m.copied {
		t.Errorf("multus's copy of the list is not what it was:\n%s\nbefore\n%s", got, m.copied)
	}
	m.cri.remove(t, remover)
	m.cri.remove(t, bare.sandbox)
	l.wantNoAttachments(t)
}

// awaitEntries: the list and the copy inside multus's configuration name the plugin, which the runtime has loaded.
func (m *multusNode) awaitEntries(t *testing.T) {
	t.Helper()
	netnstest.Eventually(t, 15*time.Second, "the list and multus's copy of it name the plugin", func() bool {
		for _, file := range []string{confFile, multusFile} {
			if !bytes.Contains(readFile(t, filepath.Join(m.disk, file)), []byte(`"ip-masq"`)) {
				return false
			}
		}
		return true
	})
	time.Sleep(time.Second)
}

// awaitQuiet: installer and multus do not take turns in writing.
func (m *multusNode) awaitQuiet(t *testing.T) {
	t.Helper()
	stamp := func() string {
		info, err := os.Stat(filepath.Join(m.disk, multusFile))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(info.ModTime(), info.Size())
	}
	before := stamp()
	time.Sleep(4 * time.Second)
	if now := stamp(); now != before {
		t.Errorf("multus's configuration is written again and again: %s, then %s", before, now)
	}
}

// serveAPI answers what multus asks of an API server: for pods, by name, and that their status was taken.
func (n *node) serveAPI(t *testing.T) {
	t.Helper()
	pod := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": map[string]any{"name": r.PathValue("name"), "namespace": r.PathValue("namespace"), "uid": "uid-" + r.PathValue("name")},
		})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/namespaces/{namespace}/pods/{name}", pod)
	mux.HandleFunc("/api/v1/namespaces/{namespace}/pods/{name}/status", pod)
	mux.HandleFunc("POST /api/v1/namespaces/{namespace}/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "v1", "kind": "Event", "metadata": map[string]any{"name": "e", "namespace": r.PathValue("namespace")}})
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	var listener net.Listener
	err := n.Do(func() (err error) { listener, err = net.Listen("tcp", "[::1]:6443"); return err })
	if err != nil {
		t.Fatalf("API server: %v", err)
	}
	go func() { _ = server.Serve(listener) }()
	netnstest.OnExit(t, func() { _ = server.Close() })
}
