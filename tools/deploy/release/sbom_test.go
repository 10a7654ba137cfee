package release

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"
)

// checkSBOM holds the document against `go version -m` of each program ("NAME ARCH"): the same modules, no more and no less.
func checkSBOM(t *testing.T, file string, programs map[string][]byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := json.Read(f)
	if err == nil {
		err = spdxlib.ValidateDocument(doc)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	checkHead(t, doc)
	packages := map[common.ElementID]*spdx.Package{}
	for _, p := range doc.Packages {
		packages[p.PackageSPDXIdentifier] = p
		if p.PackageVersion == "" || p.PackageDownloadLocation == "" || p.PackageLicenseConcluded == "" || p.PackageCopyrightText == "" {
			t.Errorf("package %s lacks a field that SPDX requires: %+v", p.PackageName, p)
		}
	}
	described, err := spdxlib.GetDescribedPackageIDs(doc)
	if err != nil || len(described) != len(programs) {
		t.Errorf("describes %v, %v, want %d programs", described, err, len(programs))
	}
	used := map[common.ElementID]bool{}
	for key, content := range programs {
		name, arch, _ := strings.Cut(key, " ")
		i := slices.IndexFunc(described, func(id common.ElementID) bool { return packages[id].PackageName == name+" linux/"+arch })
		if i < 0 {
			t.Errorf("%s is not described", key)
			continue
		}
		p := packages[described[i]]
		sum := fmt.Sprintf("%x", sha256.Sum256(content))
		if p.PackageVersion != "v0.1.0" || len(p.PackageChecksums) != 1 || p.PackageChecksums[0].Value != sum {
			t.Errorf("%s: version %s, checksums %v, want v0.1.0, %s", key, p.PackageVersion, p.PackageChecksums, sum)
		}
		var got []string
		for _, r := range doc.Relationships {
			if r.RefA.ElementRefID == p.PackageSPDXIdentifier && r.Relationship == common.TypeRelationshipDependsOn {
				used[r.RefB.ElementRefID] = true
				module := packages[r.RefB.ElementRefID]
				got = append(got, module.PackageName+" "+module.PackageVersion)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(modules(t, content), got); diff != "" {
			t.Errorf("modules of %s (-go version -m +SBOM)\n%s", key, diff)
		}
	}
	if len(used)+len(described) != len(packages) {
		t.Errorf("%d packages, of which %d are linked into a program and %d are programs", len(packages), len(used), len(described))
	}
}

func checkHead(t *testing.T, doc *spdx.Document) {
	t.Helper()
	if doc.SPDXVersion != "SPDX-2.3" || doc.DataLicense != "CC0-1.0" || doc.SPDXIdentifier != "DOCUMENT" || doc.DocumentName != "ip-masq-v0.1.0" {
		t.Errorf("head: %s %s %s %s", doc.SPDXVersion, doc.DataLicense, doc.SPDXIdentifier, doc.DocumentName)
	}
	if u, err := url.Parse(doc.DocumentNamespace); err != nil || !u.IsAbs() || u.Fragment != "" {
		t.Errorf("namespace %q: want an absolute URI", doc.DocumentNamespace)
	}
	created, err := time.Parse("2006-01-02T15:04:05Z", doc.CreationInfo.Created)
	if err != nil || created.Year() != 2026 || len(doc.CreationInfo.Creators) == 0 {
		t.Errorf("created %q by %v: want the commit's time", doc.CreationInfo.Created, doc.CreationInfo.Creators)
	}
}

// modules are what `go version -m` lists, "PATH VERSION", and the standard library.
func modules(t *testing.T, program []byte) (found []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, program, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "version", "-m", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(out), "\n")
	found = append(found, "stdlib "+strings.TrimPrefix(strings.Fields(first)[1], "go"))
	for line := range strings.Lines(rest) {
		if words := strings.Fields(line); words[0] == "dep" {
			found = append(found, words[1]+" "+words[2])
		}
	}
	if len(found) < 3 {
		t.Errorf("go version -m lists almost nothing\n%s", out)
	}
	slices.Sort(found)
	return found
}
