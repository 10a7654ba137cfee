package main

import (
	"archive/tar"
	"maps"
	"slices"
	"time"

	"github.com/ip-masq/ip-masq-cni/scripts/artifact"
)

// layer is the image's one layer.
type layer struct {
	blob          // compressed
	diffID string // digest of the tar inside
}

// newLayer packs the programs into the root directory, where the Kubernetes agent's is too, and beside them one link: runtimes
// record network namespaces as /var/run/netns/NAME, and the agent has to find them below the /run that it is given.
func newLayer(programs map[string][]byte, created time.Time) (layer, error) {
	entries := []*tar.Header{
		{Name: "run/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "var/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "var/run", Typeflag: tar.TypeSymlink, Linkname: "/run", Mode: 0o777},
	}
	for name, content := range programs {
		entries = append(entries, &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))})
	}
	plain, err := artifact.Tar(entries, programs, created)
	if err != nil {
		return layer{}, err
	}
	packed, err := artifact.Gzip(plain)
	return layer{blob: packed, diffID: blob(plain).digest()}, err
}

// fileNames of a set of files, sorted.
func fileNames(files map[string][]byte) []string { return slices.Sorted(maps.Keys(files)) }
