package install

import (
	"os"
	"path/filepath"
	"strings"
)

// fingerprint changes whenever a look may find something else than before. It costs names and times, no content.
func (o Options) fingerprint() string {
	var b strings.Builder
	b.WriteString(fingerprint(o.source()))
	b.WriteString(fingerprint(o.target()))
	names, err := candidates(o.ConfDir)
	if err != nil {
		b.WriteString(err.Error())
	}
	for _, name := range names {
		b.WriteString(fingerprint(filepath.Join(o.ConfDir, name)))
	}
	return b.String()
}

// fingerprint is of one file, and of what it leads to.
func fingerprint(path string) string {
	link, err := os.Lstat(path)
	if err != nil {
		return path + " none\n"
	}
	behind := ""
	if file, err := os.Stat(path); err == nil && !os.SameFile(link, file) {
		behind = identity(file)
	}
	return path + " " + identity(link) + " " + behind + "\n"
}
