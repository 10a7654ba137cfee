package image

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// The layout has one entry, the index of all platforms, and every digest and size on the way to the files is right.
func TestLayout(t *testing.T) {
	index := platforms(t, output(t))
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != len(arches) {
		t.Errorf("%d images, want %d", len(manifest.Manifests), len(arches))
	}
	for _, arch := range arches {
		if c := config(t, arch); c.OS != "linux" || c.Architecture != arch {
			t.Errorf("the image for linux/%s says that it is for %s/%s", arch, c.OS, c.Architecture)
		}
	}
}

// The archive of each platform is the same image, by the reader of `docker load`'s form and by that of a layout.
func TestArchive(t *testing.T) {
	tag, err := name.NewTag(reference(t, output(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range arches {
		t.Run(arch, func(t *testing.T) {
			path := filepath.Join(output(t), "ip-masq-agent-linux-"+arch+".tar")
			loaded, err := tarball.ImageFromPath(path, &tag)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(loaded); err != nil {
				t.Error(err)
			}
			want, err := platformImage(t, arch).ConfigName()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := loaded.ConfigName(); err != nil || got != want {
				t.Errorf("image ID %v (%v), want the layout's, %v", got, err, want)
			}
			dir := t.TempDir()
			extract(t, path, dir)
			if err := validate.Index(index(t, dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

// index reads a layout.
func index(t *testing.T, dir string) v1.ImageIndex {
	t.Helper()
	i, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// entry is the one of index.json.
func entry(t *testing.T, out string) v1.Descriptor {
	t.Helper()
	m, err := index(t, filepath.Join(out, "oci")).IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 {
		t.Fatalf("%d entries in index.json, want 1", len(m.Manifests))
	}
	return m.Manifests[0]
}

func reference(t *testing.T, out string) string {
	t.Helper()
	return entry(t, out).Annotations["io.containerd.image.name"]
}

func platforms(t *testing.T, out string) v1.ImageIndex {
	t.Helper()
	i, err := index(t, filepath.Join(out, "oci")).ImageIndex(entry(t, out).Digest)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func platformImage(t *testing.T, arch string) v1.Image {
	t.Helper()
	all := platforms(t, output(t))
	m, err := all.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Manifests {
		if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == arch {
			image, err := all.Image(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return image
		}
	}
	t.Fatalf("no image for linux/%s in %v", arch, m.Manifests)
	return nil
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
