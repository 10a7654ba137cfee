package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	arches   = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	programs = []string{"ip-masq", "ip-masq-agent", "ip-masq-installer"}
)

// TestRelease makes the release of one commit in two places, and reads one of them.
func TestRelease(t *testing.T) {
	var dirs [2]string
	var files [2]map[string]string
	for i := range dirs {
		dirs[i] = t.TempDir()
		c := newCheckout(t, dirs[i])
		c.commit("v0.1.0")
		c.run("make", "release")
		files[i] = readAll(t, filepath.Join(dirs[i], "bin", "release"))
	}
	if !cmp.Equal(files[0], files[1]) {
		t.Error("two releases of one commit differ")
	}
	want := []string{
		"SHA256SUMS", "ip-masq-agent-image-v0.1.0-linux-amd64.tar", "ip-masq-agent-image-v0.1.0-linux-arm64.tar",
		"ip-masq-v0.1.0-linux-amd64.tar.gz", "ip-masq-v0.1.0-linux-arm64.tar.gz", "ip-masq-v0.1.0.spdx.json",
	}
	if diff := cmp.Diff(want, sortedKeys(files[0])); diff != "" {
		t.Errorf("files (-want +got)\n%s", diff)
	}
	dir := filepath.Join(dirs[0], "bin", "release")
	checkSums(t, dir)
	all := map[string][]byte{} // programs by "NAME ARCH"
	for arch := range arches {
		for name, content := range checkArchive(t, arch, filepath.Join(dir, "ip-masq-v0.1.0-linux-"+arch+".tar.gz")) {
			all[name+" "+arch] = content
		}
	}
	checkSBOM(t, filepath.Join(dir, "ip-masq-v0.1.0.spdx.json"), all)
}

// checkSums has sha256sum read the checksums: of every file, and of a file that was changed.
func checkSums(t *testing.T, dir string) {
	t.Helper()
	check := func() (string, error) {
		cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := check(); err != nil || strings.Count(out, ": OK\n") != len(readAll(t, dir))-1 {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "ip-masq-v0.1.0.spdx.json")
	before, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append(before, ' '), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := check(); err == nil || !strings.Contains(out, "FAILED") {
		t.Errorf("a changed file passes\n%s", out)
	}
	if err := os.WriteFile(file, before, 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkArchive returns the programs in it. All is in one directory, root's, and as it is in the source.
func checkArchive(t *testing.T, arch, file string) map[string][]byte {
	t.Helper()
	base := strings.TrimSuffix(filepath.Base(file), ".tar.gz")
	got := map[string][]byte{}
	for name, content := range unpack(t, file) {
		inside, ok := strings.CutPrefix(name, base+"/")
		if !ok {
			t.Errorf("%s is outside of %s/", name, base)
		}
		got[inside] = content
	}
	found := map[string][]byte{}
	for _, name := range programs {
		found[name] = got[name]
		delete(got, name)
		if f, err := elf.NewFile(bytes.NewReader(found[name])); err != nil || f.Machine != arches[arch] {
			t.Errorf("%s of %s is no program for it: %v", name, arch, err)
		}
	}
	checkManual(t, got)
	if diff := cmp.Diff(documents(t), sortedKeys(got)); diff != "" {
		t.Errorf("%s beside the programs (-want +got)\n%s", base, diff)
	}
	for name, content := range got {
		if source, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(source, content) {
			t.Errorf("%s is not the source's: %v", name, err)
		}
	}
	return found
}

// checkManual takes the manual pages and completions out of an archive's files: those of every command are there, and a bash
// that reads its completion offers commands.
func checkManual(t *testing.T, got map[string][]byte) {
	t.Helper()
	for name, word := range map[string]string{
		"man/man8/ip-masq-agent.8": "v0.1.0", "man/man8/ip-masq-agent-status.8": "ip-masq-agent status",
		"man/man8/ip-masq-installer-install.8": "cni-conf-dir", "completions/ip-masq-agent.bash": "complete ",
		"completions/_ip-masq-agent": "#compdef ip-masq-agent", "completions/ip-masq-installer.fish": "complete -c ip-masq-installer",
	} {
		if !bytes.Contains(bytes.ReplaceAll(got[name], []byte(`\-`), []byte("-")), []byte(word)) {
			t.Errorf("%s has not the word %q:\n%.300s", name, word, got[name])
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "man/") || strings.HasPrefix(name, "completions/") {
			delete(got, name)
		}
	}
}

// documents are the files that an archive has beside the programs.
func documents(t *testing.T) []string {
	t.Helper()
	names := []string{"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"}
	for _, dir := range []string{"conf", "docs"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(file string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && path.Ext(file) != ".go" {
				rel, _ := filepath.Rel(root, file)
				names = append(names, filepath.ToSlash(rel))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	return names
}

func unpack(t *testing.T, file string) map[string][]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for entries := tar.NewReader(plain); ; {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err == nil {
			files[h.Name], err = io.ReadAll(entries)
		}
		if err != nil {
			t.Fatal(err)
		}
		mode := int64(0o644)
		if slices.Contains(programs, path.Base(h.Name)) {
			mode = 0o755
		}
		if h.Mode != mode || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s: mode %o, owner %d:%d %s", h.Name, h.Mode, h.Uid, h.Gid, h.Uname)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
