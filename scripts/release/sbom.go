package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/scripts/artifact"
)

const (
	project  = "https://github.com/ip-masq/ip-masq-cni"
	unknown  = "NOASSERTION" // SPDX's word for what nobody looked up
	document = "SPDXRef-DOCUMENT"
)

// sbom names what is linked into the programs: each program is a package, and so is each module of which it has a part. All of
// it is read from the programs themselves, where the Go toolchain writes it.
type sbom struct {
	src           artifact.Source
	packages      map[string]spdxPackage // by ID
	relationships []relationship
}

// These are the parts of SPDX 2.3 that are used here.
type spdxPackage struct {
	SPDXID           string        `json:"SPDXID"`
	Name             string        `json:"name"`
	Version          string        `json:"versionInfo"`
	Supplier         string        `json:"supplier"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	Purpose          string        `json:"primaryPackagePurpose"`
	ExternalRefs     []externalRef `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

func newSBOM(src artifact.Source) *sbom {
	return &sbom{src: src, packages: map[string]spdxPackage{}}
}

// add reads what the program was built from.
func (s *sbom) add(name, arch string, program []byte) error {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("%s for linux/%s: %w", name, arch, err)
	}
	id := spdxID("Program", name, "linux", arch)
	s.packages[id] = spdxPackage{
		SPDXID: id, Name: name + " linux/" + arch, Version: s.src.Version, Supplier: "Organization: ip-masq", Purpose: "APPLICATION",
		DownloadLocation: fmt.Sprintf("%s/releases/download/%s/ip-masq-%s-linux-%s.tar.gz", project, s.src.Version, s.src.Version, arch),
		Checksums:        []checksum{{"SHA256", fmt.Sprintf("%x", sha256.Sum256(program))}},
		LicenseConcluded: "Apache-2.0", LicenseDeclared: "Apache-2.0", CopyrightText: unknown,
	}
	s.relate(document, "DESCRIBES", id)
	s.relate(id, "DEPENDS_ON", s.module("stdlib", strings.TrimPrefix(info.GoVersion, "go"), "https://go.dev/dl/"+info.GoVersion+".src.tar.gz"))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		s.relate(id, "DEPENDS_ON", s.module(m.Path, m.Version, "https://proxy.golang.org/"+escape(m.Path)+"/@v/"+escape(m.Version)+".zip"))
	}
	return nil
}

// module returns the ID of a module's package, which is added once.
func (s *sbom) module(path, version, location string) string {
	id := spdxID("Module", path, version)
	s.packages[id] = spdxPackage{
		SPDXID: id, Name: path, Version: version, Supplier: unknown, DownloadLocation: location, Purpose: "LIBRARY",
		LicenseConcluded: unknown, LicenseDeclared: unknown, CopyrightText: unknown,
		ExternalRefs: []externalRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + version}},
	}
	return id
}

func (s *sbom) relate(element, kind, related string) {
	s.relationships = append(s.relationships, relationship{element, kind, related})
}

// encode names the document after its content, so that two different ones never have the same name.
func (s *sbom) encode() ([]byte, error) {
	var packages []spdxPackage
	for _, id := range slices.Sorted(maps.Keys(s.packages)) {
		packages = append(packages, s.packages[id])
	}
	content, err := json.Marshal([]any{packages, s.relationships})
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(map[string]any{
		"spdxVersion":       "SPDX-2.3",
		"dataLicense":       "CC0-1.0",
		"SPDXID":            document,
		"name":              "ip-masq-" + s.src.Version,
		"documentNamespace": fmt.Sprintf("%s/spdx/%s-%x", project, s.src.Version, sha256.Sum256(content)),
		"creationInfo": map[string]any{
			"created":  s.src.Created.Format(time.RFC3339),
			"creators": []string{"Tool: " + project + "/scripts/release"},
		},
		"packages":      packages,
		"relationships": s.relationships,
	}, "", "  ")
	return append(text, '\n'), err
}

// notInID are the characters that an SPDX ID may not have.
var notInID = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

func spdxID(parts ...string) string {
	return "SPDXRef-" + notInID.ReplaceAllString(strings.Join(parts, "-"), "-")
}

// escape writes capital letters as the module proxy's paths have them.
func escape(path string) string {
	return regexp.MustCompile(`[A-Z]`).ReplaceAllStringFunc(path, func(c string) string { return "!" + strings.ToLower(c) })
}
