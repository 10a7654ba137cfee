package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{},
		{"instal"},
		{"--cni-bin-dir=/x", "install"},
		{"install", "now"},
		{"install", "--dry-run", "now"},
		{"install", "--no-such-flag"},
		{"install", "--cni-bin-dir"},
		{"install", "--cni-conf-dir="},
		{"install", "--dry-run=maybe"},
		{"install", "--conf-file=/etc/cni/net.d/10-a.conflist"},
		{"install", "--conf-file=10-a.txt"},
		{"install", "--entry="},
		{"install", "--entry={"},
		{"install", `--entry={"type":"bridge"}`},
		{"install", `--entry=[{"type":"ip-masq"}]`},
		{"watch", "--metrics-bind-address=10279"},
		{"watch", "--metrics-bind-address=:no"},
		{"watch", "--dry-run"},
	} {
		r := execute(t, append([]string{installerBin()}, args...)...)
		if r.code != 2 || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%q: exit %d, %q, %q", args, r.code, r.stdout, r.stderr)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ args, want string }{
		{"--help", "uninstall"},
		{"install --help", "--cni-bin-dir"},
		{"watch -h", "--metrics-bind-address"},
		{"--version", "ip-masq-installer "},
		{"uninstall --version", "ip-masq-installer "},
	} {
		r := execute(t, append([]string{installerBin()}, strings.Fields(test.args)...)...)
		if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, test.want) {
			t.Errorf("%s: exit %d, %q, %q", test.args, r.code, r.stdout, r.stderr)
		}
	}
}

// The plugin beside the installer is the default source.
func TestDefaultSource(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	dir := t.TempDir()
	h.must(os.Link(installerBin(), filepath.Join(dir, "ip-masq-installer")))
	h.must(os.Link(filepath.Join(pluginA(), "ip-masq"), filepath.Join(dir, "ip-masq")))
	r := execute(t, append([]string{filepath.Join(dir, "ip-masq-installer"), "install"}, h.flags()[:len(h.flags())-2]...)...)
	if r.code != 0 {
		t.Fatal(r.stderr)
	}
	h.must(h.installed())
}

// --dry-run prints what is done without it, and touches nothing: no lock, no temporary file, no directory.
func TestDryRun(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"10-a.conflist", "10-a.conf"} {
		h := newHost(t)
		h.write(name, bridgeList)
		if isSingle(name) {
			h.write(name, bridgeConf)
		}
		h.previews(t, "install", "+    { \"type\": \"ip-masq\"", "# install")
		h.want(0, "", "install")
		if r := h.want(0, "", "install", "--dry-run"); r.stdout != "" {
			t.Errorf("there is nothing to do, but it prints %s", r.stdout)
		}
		h.previews(t, "uninstall", "-    { \"type\": \"ip-masq\"", "# remove")
	}
}

func (h *host) previews(t *testing.T, command string, words ...string) {
	t.Helper()
	seen, seenBin := events(t, h.conf), events(t, h.bin)
	before := h.snapshot()
	r := h.want(0, "", command, "--dry-run")
	for _, word := range append(words, "\n--- "+h.conf, "\n+++ "+h.conf, "\n@@ ") {
		if !strings.Contains("\n"+r.stdout, word) {
			t.Errorf("%s --dry-run has no %q:\n%s", command, word, r.stdout)
		}
	}
	h.unchangedSince(before)
	if got := seen() + seenBin(); got != "" {
		t.Errorf("%s --dry-run caused %s", command, got)
	}
}
