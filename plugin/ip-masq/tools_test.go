package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// hide makes the plugin run on a machine without the programs whose names match. A PATH alone would not do: the plugin also
// looks where a PATH may not lead.
func (h *host) hide(t *testing.T, match func(name string) bool) {
	t.Helper()
	netnstest.Require(t, "unshare", "mount")
	var mounts []string
	h.SetPATH("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	for _, dir := range programDirs() {
		entries, err := os.ReadDir(dir)
		if err != nil || !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return match(e.Name()) }) {
			continue
		}
		farm := t.TempDir()
		if err := os.Mkdir(filepath.Join(farm, ".all"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !match(e.Name()) {
				_ = os.Symlink(filepath.Join(farm, ".all", e.Name()), filepath.Join(farm, e.Name()))
			}
		}
		mounts = append(mounts, "mount --bind "+dir+" "+farm+"/.all", "mount --bind "+farm+" "+dir)
	}
	// rbind would carry the farm into itself; the mounts go with the process.
	script := strings.Join(append(mounts, `exec "$@"`), " && ")
	h.through = []string{"unshare", "--mount", "sh", "-c", script, "sh"}
}

// programDirs are the places of programs, each once whatever links to it.
func programDirs() []string {
	var dirs []string
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil && !slices.Contains(dirs, real) {
			dirs = append(dirs, real)
		}
	}
	return dirs
}

// wrap puts a shell script in front of the variant's iptables-restore, of IPv4 unless the name says otherwise. $REAL is the
// program itself.
func (h *host) wrap(t *testing.T, script string) {
	t.Helper()
	for _, v := range testkit.Variants() {
		if v.IsIPTables() {
			h.wrapProgram(t, "iptables-"+v.Name+"-restore", script)
		}
	}
}

func (h *host) wrapProgram(t *testing.T, name, script string) {
	t.Helper()
	real := strings.TrimSpace(h.Run(t, "sh", "-c", "command -v "+name))
	dir := t.TempDir()
	text := "#!/bin/sh\nREAL=" + real + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	h.SetPATH(dir + ":" + h.path())
}

// path is the PATH that the host's programs see now.
func (h *host) path() string {
	for _, kv := range slices.Backward(h.Env) {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			return path
		}
	}
	return os.Getenv("PATH")
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
