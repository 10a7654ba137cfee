// Command image builds the project's container image without a container engine: it cross-compiles the programs and writes
//
//	OUT/oci/                             an OCI image layout with one image index for all platforms
//	OUT/ip-masq-agent-linux-ARCH.tar     per platform what `docker load`, `podman load` and `ctr images import` read
//
// The same source gives the same bytes: no clock, no host name and no order of a directory gets in. The Dockerfile builds the
// same image for whoever has an engine.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ip-masq/ip-masq-cni/scripts/artifact"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run() error {
	out := flag.String("o", "bin/image", "`directory` to write to; what an earlier build left there is replaced")
	name := flag.String("name", "ghcr.io/ip-masq/ip-masq-agent", "`name` of the image, without a tag")
	arches := flag.String("arch", artifact.Arches, "`list` of architectures")
	flag.Parse()
	src, err := artifact.Describe()
	if err != nil {
		return err
	}
	images, err := buildAll(src, strings.Split(*arches, ","))
	if err != nil {
		return err
	}
	if err := writeAll(*out, *name+":"+tag(src.Version), images); err != nil {
		return err
	}
	for _, i := range images {
		fmt.Printf("image: %s:%s linux/%s %.1f MiB compressed, %s\n", *name, tag(src.Version), i.arch, float64(i.layer.size())/(1<<20), i.manifest.digest())
	}
	return nil
}

// tag is a version as an image reference can carry it.
func tag(version string) string { return strings.ReplaceAll(version, "+", "-") }

// buildAll compiles and packs one image per architecture.
func buildAll(src artifact.Source, arches []string) ([]image, error) {
	var images []image
	for _, arch := range arches {
		programs, err := artifact.Compile(src, arch)
		if err != nil {
			return nil, err
		}
		i, err := newImage(src, arch, programs)
		if err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	return images, nil
}

// writeAll replaces what is in out, so that no blob of an earlier build stays behind.
func writeAll(out, ref string, images []image) error {
	layout := filepath.Join(out, "oci")
	if err := os.RemoveAll(layout); err != nil {
		return err
	}
	if err := layoutFiles(ref, images).writeDir(layout); err != nil {
		return err
	}
	for _, i := range images {
		tar := filepath.Join(out, "ip-masq-agent-linux-"+i.arch+".tar")
		if err := dockerFiles(ref, i).writeTar(tar); err != nil {
			return err
		}
	}
	return nil
}
