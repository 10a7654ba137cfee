package install

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

// cached puts an attachment into the runtime's cache, as libcni does (api.go, cacheAdd).
func (h *host) cached(name, list string) string {
	h.t.Helper()
	dir := filepath.Join(h.cache, "results")
	h.mkdir(dir)
	text, err := json.Marshal(map[string]any{"kind": "cniCacheV1", "containerId": name, "config": []byte(list), "ifName": "eth0", "networkName": "pods"})
	h.must(err)
	path := filepath.Join(dir, "pods-"+name+"-eth0")
	h.must(os.WriteFile(path, text, 0o600))
	return path
}

// B26, B28: every list that names ip-masq, also those behind the first; then the binary; and once more for nothing.
func TestUninstall(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.want(0, "", "install")
	h.write("05-b.conflist", strings.Replace(bridgeList, "pods", "b", 1))
	h.want(0, "", "install")
	h.write("00-c.conf", bridgeConf)
	h.want(0, "", "install")
	h.write("99-others.conflist", listOf(v1, `{"type":"tuning"}`))
	h.want(0, "", "uninstall")
	for name, want := range map[string]string{"10-a.conflist": bridgeList, "05-b.conflist": strings.Replace(bridgeList, "pods", "b", 1), "00-c.conf": bridgeConf} {
		if got := h.read(h.path(name)); got != want {
			t.Errorf("%s is not given back:\n%s", name, got)
		}
	}
	if exists(h.target()) || len(h.names()) != 4 {
		t.Errorf("left: %v", h.names())
	}
	before := h.snapshot()
	h.want(0, "", "uninstall")
	h.unchangedSince(before)
}

// B26: the binary stays for the pods that will be deleted with it, and goes when they are gone.
func TestUninstallWithPods(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.want(0, "", "install")
	first := h.cached("one", h.read(h.path("10-a.conflist")))
	second := h.cached("two", listOf(v1, `{"type":"multus","delegates":[{"name":"x","plugins":[{"type":"ip-masq"}]}]}`))
	h.cached("three", bridgeList)
	h.must(os.WriteFile(filepath.Join(h.cache, "results", "half"), []byte(`{"kind":"cniCa`), 0o600))
	h.must(os.WriteFile(first+"-net1", []byte(h.read(first)), 0o600)) // the same pod's second network
	h.want(3, "(3 attachments, stays", "uninstall")
	if r := h.want(3, "", "uninstall"); !strings.Contains(r.stderr, "but 2 pods (3 attachments, such as "+h.cache) {
		t.Errorf("it does not count the pods: %s", r.stderr)
	}
	h.must(os.Remove(first + "-net1"))
	if h.read(h.path("10-a.conflist")) != bridgeList {
		t.Error("the entry is not out")
	}
	h.must(h.answers())
	h.must(os.Remove(first))
	h.want(3, "(1 attachments,", "uninstall", "--dry-run")
	h.want(3, "(1 attachments,", "uninstall")
	h.must(os.Remove(second))
	// Multus has a cache of its own, for each of the places that it can be told.
	elsewhere := filepath.Join(filepath.Dir(h.cache), "elsewhere")
	h.write("20-multus.conf", `{"name":"m","cniVersion":"1.0.0","type":"multus","clusterNetwork":"pods","cniDir":"`+elsewhere+`"}`)
	for _, dir := range []string{filepath.Join(h.cache, "multus"), elsewhere} {
		other := *h
		other.cache = dir
		path := other.cached("one", listOf(v1, `{"type":"ip-masq"}`))
		h.want(3, "(1 attachments, "+path, "uninstall")
		h.must(os.Remove(path))
	}
	h.want(0, "", "uninstall")
	if exists(h.target()) {
		t.Error("the plugin is still there")
	}
}

// While anything may still name ip-masq, or does where the installer must not write, the binary stays; the entries go all the same.
func TestUninstallKeepsBinary(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		make  func(h *host) error
		words string
	}{
		"list does not parse": {func(h *host) error { h.write("20-b.conflist", `{"plugins":[`); return nil }, "20-b.conflist parse"},
		"empty list":          {func(h *host) error { h.write("20-b.conflist", ""); return nil }, "20-b.conflist parse"},
		"dangling":            {func(h *host) error { return os.Symlink("nowhere", h.path("20-b.conflist")) }, "20-b.conflist symlink"},
		"pipe":                {func(h *host) error { return mkfifo(h.path("20-b.conflist")) }, "20-b.conflist"},
		"inside multus": {func(h *host) error {
			h.write("20-b.conf", `{"name":"m","type":"multus","delegates":[{"plugins":[{"type":"ip-masq"}]}]}`)
			return nil
		}, "20-b.conf inside"},
		"drop-in directory": {func(h *host) error {
			h.mkdir(h.path("pods"))
			h.write("pods/50-ip-masq.conf", `{"type":"ip-masq"}`)
			return nil
		}, "50-ip-masq.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.write("10-a.conflist", bridgeList)
			h.want(0, "", "install")
			h.must(test.make(h))
			h.want(3, test.words+" stays "+h.target(), "uninstall")
			if h.read(h.path("10-a.conflist")) != bridgeList {
				t.Error("the entry is not out")
			}
			h.must(h.answers())
			h.must(os.RemoveAll(h.path("pods")))
			_ = os.Remove(h.path("20-b.conflist"))
			_ = os.Remove(h.path("20-b.conf"))
			h.want(0, "", "uninstall")
		})
	}
}

// B27: a list that would be empty is not made so, and then nothing else is done either.
func TestUninstallRefusesTheLast(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.want(0, "", "install")
	h.write("20-b.conflist", listOf(v1, `{"type":"ip-masq"}`))
	before := h.snapshot()
	h.want(1, "20-b.conflist only", "uninstall")
	h.unchangedSince(before)
}
