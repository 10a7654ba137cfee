package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the .golden files instead of comparing with them")

// TestGolden shows what users read when they make a typical mistake: each testdata/X.yaml with its findings in X.golden.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(paths) < 15 {
		t.Fatalf("found %d mistakes, error %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			config, findings, err := Load(Options{Path: path})
			if err == nil {
				t.Fatalf("accepted as %+v", config)
			}
			var lines strings.Builder
			for _, f := range findings {
				lines.WriteString(filepath.ToSlash(f.String()) + "\n")
			}
			compareGolden(t, strings.TrimSuffix(path, ".yaml")+".golden", lines.String())
		})
	}
}

func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("findings differ from %s (-want +got), go test -update writes them:\n%s", path, diff)
	}
}
