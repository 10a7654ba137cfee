package main

import (
	"archive/tar"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/ip-masq/ip-masq-cni/scripts/artifact"
)

// documents are what an archive has beside the programs, files and directories of the source.
var documents = []string{"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "conf", "docs"}

// archive packs one directory of the given name: programs, what was made from their command lines, and documents.
func archive(name string, src artifact.Source, programs, made map[string][]byte) ([]byte, error) {
	content := map[string][]byte{}
	var entries []*tar.Header
	add := func(file string, mode int64, data []byte) {
		file = path.Join(name, file)
		content[file] = data
		entries = append(entries, &tar.Header{Name: file, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(data))})
	}
	for program, data := range programs {
		add(program, 0o755, data)
	}
	for file, data := range made {
		add(file, 0o644, data)
	}
	for _, document := range documents {
		err := filepath.WalkDir(document, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path.Ext(file) == ".go" { // tests of the documents
				return err
			}
			data, err := os.ReadFile(file)
			add(filepath.ToSlash(file), 0o644, data)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	packed, err := artifact.Tar(entries, content, src.Created)
	if err != nil {
		return nil, err
	}
	return artifact.Gzip(packed)
}
