package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var programs = []string{"ip-masq", "ip-masq-agent", "ip-masq-installer"}

// sizeLimit is what nodes are asked to download at most, and to store.
const sizeLimit = 24 << 20

func TestConfig(t *testing.T) {
	for _, arch := range arches {
		c := config(t, arch)
		if diff := cmp.Diff([]string{"/ip-masq-agent"}, c.Config.Entrypoint); diff != "" || c.Config.Cmd != nil {
			t.Errorf("entrypoint: %s, command %q", diff, c.Config.Cmd)
		}
		labels := c.Config.Labels
		for _, label := range []string{"title", "description", "source", "licenses", "version", "created"} {
			if labels["org.opencontainers.image."+label] == "" {
				t.Errorf("no label %s", label)
			}
		}
	}
}

// The image has three programs, static and for its platform, and what they need around them: nothing but a link.
func TestContent(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for _, arch := range arches {
		t.Run(arch, func(t *testing.T) {
			dir := unpacked(t, arch)
			var names []string
			var total int64
			for _, file := range readDir(t, dir) {
				names = append(names, file.Name())
			}
			for _, name := range programs {
				path := filepath.Join(dir, name)
				total += checkProgram(t, path, machines[arch])
			}
			want := append(slices.Clone(programs), "run", "var")
			if diff := cmp.Diff(want, names); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if link, err := os.Readlink(filepath.Join(dir, "var/run")); err != nil || link != "/run" {
				t.Errorf("/var/run is %q, %v: want a link to /run", link, err)
			}
			if total > sizeLimit {
				t.Errorf("%d bytes, want %d at most", total, sizeLimit)
			}
			t.Logf("%.1f MiB", float64(total)/(1<<20))
		})
	}
}

func checkProgram(t *testing.T, path string, machine elf.Machine) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Error(err)
		return 0
	}
	if info.Mode() != 0o755 {
		t.Errorf("%s has the mode %v", path, info.Mode())
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer f.Close()
	if f.Machine != machine {
		t.Errorf("%s is for %v, want %v", path, f.Machine, machine)
	}
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("%s is not static", path)
	}
	if f.Section(".symtab") != nil {
		t.Errorf("%s is not stripped", path)
	}
	return info.Size()
}

// What the image is told to run, it runs with nothing but itself around it, and says the version of the label.
func TestPrograms(t *testing.T) {
	if runtime.GOARCH != "amd64" || os.Getuid() != 0 {
		t.Skip("needs amd64, and root for chroot")
	}
	dir, c := unpacked(t, "amd64"), config(t, "amd64").Config
	version := c.Labels["org.opencontainers.image.version"]
	for _, run := range []struct {
		command []string
		env     string
		says    string
	}{
		{append(slices.Clone(c.Entrypoint), "--version"), "", version},
		{[]string{"/ip-masq-installer", "--version"}, "", version},
		{[]string{"/ip-masq"}, "", version},
		{[]string{"/ip-masq"}, "CNI_COMMAND=VERSION", `"supportedVersions"`},
	} {
		cmd := exec.Command(run.command[0], run.command[1:]...)
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: dir}
		cmd.Env, cmd.Stdin = append(slices.Clone(c.Env), run.env), strings.NewReader(`{"cniVersion":"1.0.0"}`)
		said, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(said), run.says) {
			t.Errorf("%q: %v\n%s\nwant %s", run.command, err, said, run.says)
		}
	}
}

// The Dockerfile describes the same image.
func TestDockerfile(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	c := config(t, "amd64").Config
	lines := []string{`ENTRYPOINT ["` + strings.Join(c.Entrypoint, `", "`) + `"]`, "ENV " + c.Env[0], "WORKDIR " + c.WorkingDir}
	labels := maps.Clone(c.Labels)
	labels["org.opencontainers.image.revision"] = "" // which a source tree without git does not know
	for label, value := range labels {
		switch label = strings.TrimPrefix(label, "org.opencontainers.image."); label {
		case "version", "revision", "created":
			value = "$" + strings.ToUpper(label)
		}
		lines = append(lines, "org.opencontainers.image."+label+`="`+value+`"`)
	}
	for _, line := range lines {
		if !strings.Contains(text, line) {
			t.Errorf("no %s in the Dockerfile", line)
		}
	}
	if n := strings.Count(text, "org.opencontainers.image."); n != len(labels) {
		t.Errorf("%d labels in the Dockerfile, %d in the image", n, len(labels))
	}
}

func unpacked(t *testing.T, arch string) string {
	t.Helper()
	dir := t.TempDir()
	layers, err := platformImage(t, arch).Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v: want one", len(layers), err)
	}
	files, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	untar(t, files, dir)
	return dir
}

func extract(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	untar(t, f, dir)
}

// untar also checks that every entry is root's, and that the archive has its end: Go's reader does without, others do not.
func untar(t *testing.T, from io.Reader, dir string) {
	t.Helper()
	archive, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(archive, make([]byte, 1024)) {
		t.Error("the archive has no end: two blocks of zeros")
	}
	for entries := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil {
			err = place(h, entries, filepath.Join(dir, h.Name))
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s belongs to %d:%d %s", h.Name, h.Uid, h.Gid, h.Uname)
		}
	}
}

func place(h *tar.Header, content io.Reader, path string) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(path, 0o755)
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, path)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, h.FileInfo().Mode())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

func readDir(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
