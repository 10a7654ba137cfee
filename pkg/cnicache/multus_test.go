package cnicache

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// TestMultus: pods that multus attached are found where it keeps them, and it is its own copy of the list that counts.
func TestMultus(t *testing.T) {
	own, theirs := list("pods", "bridge", "ip-masq"), list("pods", "bridge")
	elsewhere := t.TempDir()
	const shim = `{"name": "m", "type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-pods.conflist"}`
	thin := func(list string) string {
		return fmt.Sprintf(`{"name": "m", "type": "multus", "delegates": [%s]}`, list)
	}
	for name, c := range map[string]struct {
		dir       string // where the result is; empty: below the runtime's cache
		cached    string // the list as it was when the pod was attached
		conflists map[string]string
		want      bool
	}{
		"thick":                          {"", theirs, map[string]string{"00-multus.conf": shim, "10-pods.conflist": own}, true},
		"thin":                           {"", theirs, map[string]string{"00-multus.conf": thin(own), "10-pods.conflist": own}, true},
		"thin, its copy is older":        {"", theirs, map[string]string{"00-multus.conf": thin(theirs), "10-pods.conflist": own}, false},
		"thin, there is the copy alone":  {"", theirs, map[string]string{"00-multus.conf": thin(own)}, true},
		"a list with multus":             {"", theirs, map[string]string{"00-multus.conflist": `{"name": "m", "plugins": [` + thin(own) + `]}`}, true},
		"a further network of one pod":   {"", own, map[string]string{"00-multus.conf": shim}, true},
		"not masqueraded":                {"", theirs, map[string]string{"00-multus.conf": shim, "10-pods.conflist": theirs}, false},
		"in a directory of its own":      {elsewhere, theirs, map[string]string{"00-multus.conf": `{"name": "m", "type": "multus", "cniDir": "` + elsewhere + `"}`, "10-pods.conflist": own}, true},
		"a directory that nobody names":  {elsewhere, theirs, map[string]string{"10-pods.conflist": own}, false},
		"a directory of another program": {elsewhere, theirs, map[string]string{"00-x.conf": `{"name": "m", "type": "x", "cniDir": "` + elsewhere + `"}`, "10-pods.conflist": own}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cache := cacheOf(t, map[string]string{"m-a-eth0": v1("m", "a", pathHere, shim)}, c.conflists)
			dir := c.dir
			if dir == "" {
				dir = filepath.Join(cache.Dir, "multus")
			}
			if err := os.MkdirAll(filepath.Join(dir, "results"), 0o755); err != nil {
				t.Fatal(err)
			}
			before := cache.Stamp()
			write(t, filepath.Join(dir, "results", "pods-a-eth0"), v1("pods", "a", pathHere, c.cached))
			got, known, err := cache.Attachments()
			owner := attachment.Owner{Network: "pods", ContainerID: "a", IfName: "eth0"}
			if err != nil || (len(got) == 1) != c.want || c.want && got[0].Owner != owner {
				t.Fatalf("%v, %v, want %v", got, err, c.want)
			}
			if c.want && (!known[owner.ID()] || cache.Stamp() == before) {
				t.Error("it is not known, or the stamp is the same")
			}
			if file := File(cache.Dir, owner); c.dir == "" && filepath.Dir(file) != filepath.Join(dir, "results") {
				t.Errorf("its file is said to be %s", file)
			}
		})
	}
}
