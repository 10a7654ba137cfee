package agent_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestListing compares `iptables -t nat -L IP-MASQ-AGENT` with what the Kubernetes documentation shows for the defaults and for
// both of its example configurations, apart from column padding and random-fully. There is no -update for these files: their
// text is a promise.
func TestListing(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		paths, err := filepath.Glob("testdata/listing/*.yaml")
		if err != nil || len(paths) != 3 {
			t.Fatalf("found %v, error %v", paths, err)
		}
		for _, path := range paths {
			t.Run(filepath.Base(path), func(t *testing.T) {
				r.Write(t, read(t, path))
				r.Sync(t)
				_, got, _ := strings.Cut(r.nat(t, "-L", "IP-MASQ-AGENT"), "\n") // the first line counts the pods
				want := read(t, strings.TrimSuffix(path, ".yaml")+".listing")
				if diff := cmp.Diff(unpadded(want), unpadded(strings.ReplaceAll(got, " random-fully", ""))); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	})
}

// TestListingWithoutFile is the first of them for a node that has no configuration at all.
func TestListingWithoutFile(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		r.Sync(t, "--random-fully=false")
		_, got, _ := strings.Cut(r.nat(t, "-L", "IP-MASQ-AGENT"), "\n")
		if diff := cmp.Diff(unpadded(read(t, "testdata/listing/defaults.listing")), unpadded(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

var (
	padding  = regexp.MustCompile(` +`)
	trailing = regexp.MustCompile(`(?m) +$`)
)

func unpadded(listing string) string {
	return trailing.ReplaceAllString(padding.ReplaceAllString(listing, " "), "")
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
