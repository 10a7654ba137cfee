package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path"
	"time"

	"github.com/ip-masq/ip-masq-cni/scripts/artifact"
)

// The media types of the OCI image specification that are used here.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// searchPath finds the programs by their bare names (command: [ip-masq-installer, install]). The rest is for the host's
// iptables, which the agent starts with the host's root as its own.
const searchPath = "PATH=/:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// blob is a piece of content that is addressed by its digest.
type blob []byte

func (b blob) hex() string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
func (b blob) digest() string { return "sha256:" + b.hex() }
func (b blob) size() int      { return len(b) }
func (b blob) path() string   { return path.Join("blobs", "sha256", b.hex()) }

// image is one platform's: three blobs.
type image struct {
	arch     string
	layer    layer
	config   blob
	manifest blob
}

// descriptor points from one blob to another.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

func describe(mediaType string, b blob) descriptor {
	return descriptor{MediaType: mediaType, Digest: b.digest(), Size: b.size()}
}

// labels are also the annotations of manifests and index, where registries look for them.
func labels(s artifact.Source) map[string]string {
	l := map[string]string{
		"org.opencontainers.image.title":       "ip-masq-agent",
		"org.opencontainers.image.description": "Node masquerading for Kubernetes: CNI plugin ip-masq, ip-masq-agent and ip-masq-installer",
		"org.opencontainers.image.source":      "https://github.com/ip-masq/ip-masq-cni",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     s.Version,
		"org.opencontainers.image.created":     s.Created.Format(time.RFC3339),
	}
	if s.Revision != "" {
		l["org.opencontainers.image.revision"] = s.Revision
	}
	return l
}

// newImage runs the agent unless told otherwise, like the Kubernetes agent's image. It names no user: the rules are root's.
func newImage(s artifact.Source, arch string, programs map[string][]byte) (image, error) {
	l, err := newLayer(programs, s.Created)
	if err != nil {
		return image{}, err
	}
	created := s.Created.Format(time.RFC3339)
	config := encode(map[string]any{
		"architecture": arch,
		"os":           "linux",
		"created":      created,
		"config": map[string]any{
			"Entrypoint": []string{"/ip-masq-agent"},
			"Env":        []string{searchPath},
			"WorkingDir": "/",
			"Labels":     labels(s),
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{l.diffID}},
		"history": []any{map[string]any{"created": created, "created_by": "make image"}},
	})
	manifest := encode(map[string]any{
		"schemaVersion": 2,
		"mediaType":     typeManifest,
		"config":        describe(typeConfig, config),
		"layers":        []descriptor{describe(typeLayer, l.blob)},
		"annotations":   labels(s),
	})
	return image{arch: arch, layer: l, config: config, manifest: manifest}, nil
}

// describe is the image's descriptor with its platform.
func (i image) describe() descriptor {
	d := describe(typeManifest, i.manifest)
	d.Platform = &platform{Architecture: i.arch, OS: "linux"}
	return d
}

// encode never fails: it is given strings, numbers, lists and maps, and writes maps in the order of their keys.
func encode(v any) blob {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
