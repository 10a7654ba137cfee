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
	"regexp"
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
	ref := flag.String("name", "", "`name` of the image with its tag (default: the one in "+manifest+", so that a cluster finds it)")
	arches := flag.String("arch", artifact.Arches, "`list` of architectures")
	flag.Parse()
	if *ref == "" {
		var err error
		if *ref, err = manifestImage(); err != nil {
			return err
		}
	}
	src, err := artifact.Describe()
	if err != nil {
		return err
	}
	if err := sameRelease(src.Version, *ref); err != nil {
		return err
	}
	images, err := buildAll(src, strings.Split(*arches, ","))
	if err != nil {
		return err
	}
	if err := writeAll(*out, *ref, images); err != nil {
		return err
	}
	for _, i := range images {
		fmt.Printf("image: %s linux/%s, version %s, %.1f MiB compressed, %s\n", *ref, i.arch, src.Version, float64(i.layer.size())/(1<<20), i.manifest.digest())
	}
	return nil
}

// manifest is the one place of the image's name and version.
const manifest = "conf/ip-masq-agent.yaml"

var imageLine = regexp.MustCompile(`(?m)^\s*image: &image (\S+:\S+)`)

// manifestImage is the image that the manifests name.
func manifestImage() (string, error) {
	text, err := os.ReadFile(manifest)
	if err != nil {
		return "", err
	}
	found := imageLine.FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("%s names no image", manifest)
	}
	return string(found[1]), nil
}

var release = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[a-z]+[.0-9a-z]*)?(\+.*)?$`)

// sameRelease refuses a release whose manifests would name another one's image. What is between two releases goes by the name of
// the last one, so that a cluster runs what was built.
func sameRelease(version, ref string) error {
	tag := strings.ReplaceAll(version, "+", "-") // as an image reference can carry it
	if release.MatchString(version) && !strings.HasSuffix(ref, ":"+tag) {
		return fmt.Errorf("the version is %s, and the image is to be %s: write the version into %s, its copies and the chart's appVersion", version, ref, manifest)
	}
	return nil
}

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
