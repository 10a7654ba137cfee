package image

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// root is the project's, as seen from here.
const root = "../../.."

// imageName is the one in the manifests.
const imageName = "ghcr.io/ip-masq/ip-masq-agent"

var arches = []string{"amd64", "arm64"}

// built is a directory with what `make image` writes, made once for all tests.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ip-masq-image-test-")
	if err != nil {
		return "", err
	}
	_, err = build(root, dir)
	return dir, err
})

func TestMain(m *testing.M) {
	status := m.Run()
	if dir, err := built(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(status)
}

func build(src, out string, env ...string) (string, error) {
	c := exec.Command("go", "run", "./scripts/image", "-o", out)
	c.Dir, c.Env = src, append(os.Environ(), env...)
	said, err := c.CombinedOutput()
	return string(said), err
}

func output(t *testing.T) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatalf("make image: %v", err)
	}
	return dir
}

// Another checkout, without git and at another time, gives the same bytes if it is told the same version and date.
func TestReproducible(t *testing.T) {
	first := output(t)
	labels := config(t, "amd64").Config.Labels
	created, err := time.Parse(time.RFC3339, labels["org.opencontainers.image.created"])
	if err != nil {
		t.Fatal(err)
	}
	src, second := t.TempDir(), t.TempDir()
	copySource(t, src)
	said, err := build(src, second,
		"VERSION="+labels["org.opencontainers.image.version"],
		"REVISION="+labels["org.opencontainers.image.revision"],
		"SOURCE_DATE_EPOCH="+created.UTC().Format("20060102")+"x")
	if err == nil || !strings.Contains(said, "SOURCE_DATE_EPOCH") {
		t.Errorf("a date that is none was accepted: %v %s", err, said)
	}
	if said, err = build(src, second,
		"VERSION="+labels["org.opencontainers.image.version"],
		"REVISION="+labels["org.opencontainers.image.revision"],
		"SOURCE_DATE_EPOCH="+unix(created)); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if diff := cmp.Diff(sums(t, first), sums(t, second)); diff != "" {
		t.Errorf("two builds of one source differ\n%s", diff)
	}
}

// A second build into the same directory leaves nothing of the first. What is between two releases has the name in the manifests,
// so that what was built is what a cluster runs.
func TestRebuild(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"devel", "devel-0123456789ab"} {
		if said, err := build(root, dir, "VERSION="+version); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
	}
	const perImage, shared = 3, 3 // layer, config, manifest; index, index.json, oci-layout
	if n := len(sums(t, filepath.Join(dir, "oci"))); n != len(arches)*perImage+shared {
		t.Errorf("%d files in the layout", n)
	}
	manifest, err := os.ReadFile(filepath.Join(root, "conf/ip-masq-agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := reference(t, dir); !strings.HasPrefix(got, imageName+":v") || !strings.Contains(string(manifest), "image: &image "+got+" ") {
		t.Errorf("the image is %q, which is not the one of the manifest", got)
	}
}

// A release whose manifests name another one's image is refused.
func TestReleaseNamesItsImage(t *testing.T) {
	for _, version := range []string{"v99.0.0", "v99.0.0-rc.1", "v99.0.0+build"} {
		if said, err := build(root, t.TempDir(), "VERSION="+version); err == nil || !strings.Contains(said, "conf/ip-masq-agent.yaml") {
			t.Errorf("%s: %v\n%s", version, err, said)
		}
	}
}

// The revision and the date are the commit's.
func TestCommit(t *testing.T) {
	labels := config(t, "amd64").Config.Labels
	for label, command := range map[string]string{
		"org.opencontainers.image.revision": "git rev-parse HEAD",
		"org.opencontainers.image.created":  "git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ",
	} {
		words := strings.Fields(command)
		c := exec.Command(words[0], words[1:]...)
		c.Dir, c.Env = root, append(os.Environ(), "TZ=UTC")
		want, err := c.Output()
		if err != nil {
			t.Skipf("%s: %v", command, err)
		}
		if labels[label] != strings.TrimSpace(string(want)) {
			t.Errorf("%s is %q, want %q", label, labels[label], want)
		}
	}
}

func copySource(t *testing.T, to string) {
	t.Helper()
	for _, dir := range []string{"cmd", "pkg", "plugin", "scripts"} {
		if err := os.CopyFS(filepath.Join(to, dir), os.DirFS(filepath.Join(root, dir))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum", "conf/ip-masq-agent.yaml"} {
		b, err := os.ReadFile(filepath.Join(root, file))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, file)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, file), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sums are the digests of all files below a directory.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		found[strings.TrimPrefix(path, dir)] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func config(t *testing.T, arch string) *v1.ConfigFile {
	t.Helper()
	c, err := platformImage(t, arch).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
