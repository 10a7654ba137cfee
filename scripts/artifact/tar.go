package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"slices"
	"strings"
	"time"
)

// Tar writes the entries in the order of their names, all of one time, owner and format. The content is by name too.
func Tar(entries []*tar.Header, content map[string][]byte, mtime time.Time) ([]byte, error) {
	slices.SortFunc(entries, func(a, b *tar.Header) int { return strings.Compare(a.Name, b.Name) })
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

// Gzip compresses without a name or a time in the header.
func Gzip(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}
