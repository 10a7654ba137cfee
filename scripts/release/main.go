// Command release builds what is published for a version, from the source as it is:
//
//	OUT/ip-masq-VERSION-linux-ARCH.tar.gz            the programs, with licence, documents, examples, manual pages, completions
//	OUT/ip-masq-agent-image-VERSION-linux-ARCH.tar   the image, for docker load, podman load and ctr images import
//	OUT/ip-masq-VERSION.spdx.json                    what is linked into the programs: the SBOM, in SPDX 2.3
//	OUT/SHA256SUMS                                   of all of these, for sha256sum --check
//
// The same commit and the same Go give the same bytes. It publishes nothing.
package main

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/scripts/artifact"
)

func main() {
	out := flag.String("o", "bin/release", "`directory` to write to; it is replaced")
	onlyNotes := flag.Bool("notes", false, "print what CHANGELOG.md says about this version, and build nothing")
	flag.Parse()
	if err := run(*out, *onlyNotes); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(out string, onlyNotes bool) error {
	src, err := artifact.Describe()
	if err != nil {
		return err
	}
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	text, err := notes(src.Version, string(changelog))
	if err != nil {
		return err
	}
	if onlyNotes {
		fmt.Print(text)
		return nil
	}
	files, err := build(src)
	if err != nil {
		return err
	}
	files["SHA256SUMS"] = sums(files)
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(out, name), files[name], 0o644); err != nil {
			return err
		}
		fmt.Printf("release: %s %.1f MiB\n", filepath.Join(out, name), float64(len(files[name]))/(1<<20))
	}
	return nil
}

// build returns all files but the checksums, by name.
func build(src artifact.Source) (map[string][]byte, error) {
	files, err := images(src)
	if err != nil {
		return nil, err
	}
	made, err := manual(src)
	if err != nil {
		return nil, err
	}
	bom := newSBOM(src)
	for _, arch := range strings.Split(artifact.Arches, ",") {
		programs, err := artifact.Compile(src, arch)
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(programs)) {
			if err := bom.add(name, arch, programs[name]); err != nil {
				return nil, err
			}
		}
		name := fmt.Sprintf("ip-masq-%s-linux-%s", src.Version, arch)
		if files[name+".tar.gz"], err = archive(name, src, programs, made); err != nil {
			return nil, err
		}
	}
	files["ip-masq-"+src.Version+".spdx.json"], err = bom.encode()
	return files, err
}

// images are the archives that scripts/image writes.
func images(src artifact.Source) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "ip-masq-release-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cmd := exec.Command("go", "run", "./scripts/image", "-o", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("scripts/image: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "oci")); err != nil { // which has the same blobs once more
		return nil, err
	}
	written, err := artifact.ReadDir(dir)
	files := map[string][]byte{}
	for name, content := range written {
		files[strings.Replace(name, "ip-masq-agent-", "ip-masq-agent-image-"+src.Version+"-", 1)] = content
	}
	return files, err
}

func sums(files map[string][]byte) []byte {
	var out bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(files[name]), name)
	}
	return out.Bytes()
}
