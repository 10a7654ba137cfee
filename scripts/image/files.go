package main

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/scripts/artifact"
)

// files are a directory's, by their slashed paths.
type files map[string][]byte

func (f files) add(b blob) { f[b.path()] = b }

// layoutFiles are an OCI image layout: one entry, the index of all platforms, under the image's name.
func layoutFiles(ref string, images []image) files {
	f := files{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	var manifests []descriptor
	for _, i := range images {
		f.addImage(i)
		manifests = append(manifests, i.describe())
	}
	index := newIndex(manifests...)
	f.add(index)
	f["index.json"] = newIndex(named(ref, describe(typeIndex, index)))
	return f
}

// dockerFiles are one platform's image in the form that `docker save` writes today: an OCI layout with a manifest.json beside
// it, so that old and new engines read it alike.
func dockerFiles(ref string, i image) files {
	f := files{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	f.addImage(i)
	f["index.json"] = newIndex(named(ref, i.describe()))
	f["manifest.json"] = encode([]any{map[string]any{
		"Config":   i.config.path(),
		"RepoTags": []string{ref},
		"Layers":   []string{i.layer.path()},
	}})
	return f
}

func (f files) addImage(i image) {
	f.add(i.layer.blob)
	f.add(i.config)
	f.add(i.manifest)
}

func newIndex(manifests ...descriptor) blob {
	return encode(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": manifests})
}

// named gives a descriptor the annotations by which tools find it: the tag by the specification, the whole name for containerd.
func named(ref string, d descriptor) descriptor {
	d.Annotations = map[string]string{
		"io.containerd.image.name":          ref,
		"org.opencontainers.image.ref.name": ref[strings.LastIndex(ref, ":")+1:],
	}
	return d
}

func (f files) writeDir(dir string) error {
	for _, name := range fileNames(f) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (f files) writeTar(path string) error {
	entries := []*tar.Header{
		{Name: "blobs/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "blobs/sha256/", Typeflag: tar.TypeDir, Mode: 0o755},
	}
	for _, name := range fileNames(f) {
		entries = append(entries, &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f[name]))})
	}
	packed, err := artifact.Tar(entries, f, time.Unix(0, 0))
	if err != nil {
		return err
	}
	return os.WriteFile(path, packed, 0o644)
}
