package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"slices"
	"time"
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
	plain, err := packTar(entries, programs, created)
	if err != nil {
		return layer{}, err
	}
	packed, err := compress(plain)
	return layer{blob: packed, diffID: blob(plain).digest()}, err
}

// packTar writes the entries in the order of their names, all of one time, owner and format.
func packTar(entries []*tar.Header, content map[string][]byte, mtime time.Time) ([]byte, error) {
	slices.SortFunc(entries, func(a, b *tar.Header) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		e.ModTime, e.Format = mtime, tar.FormatUSTAR
		if err := w.WriteHeader(e); err != nil {
			return nil, err
		}
		if _, err := w.Write(content[e.Name]); err != nil {
			return nil, err
		}
	}
	err := w.Close() // which writes the end of the archive
	return out.Bytes(), err
}

// compress is gzip without a name or a time in its header.
func compress(plain []byte) (blob, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(w, bytes.NewReader(plain)); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// fileNames of a set of files, sorted.
func fileNames(files map[string][]byte) []string { return slices.Sorted(maps.Keys(files)) }
