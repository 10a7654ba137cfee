package attachment_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestNetNSGone: only what is proved counts as gone, because the rules of a pod go with it.
func TestNetNSGone(t *testing.T) {
	netnstest.Require(t)
	one, two := netnstest.NewSpace(t, "one"), netnstest.NewSpace(t, "two")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := attachment.StatNetNS(one.Path)
	if seen.Inode == 0 || seen.Path != one.Path {
		t.Fatalf("identified as %+v", seen)
	}
	at := func(path string) attachment.NetNS {
		return attachment.NetNS{Path: path, Device: seen.Device, Inode: seen.Inode}
	}
	for _, c := range []struct {
		name string
		ns   attachment.NetNS
		want bool
	}{
		{"it is there", seen, false},
		{"nothing is known", attachment.NetNS{}, false},
		{"only the path is known, and something is there", attachment.NetNS{Path: one.Path}, false},
		{"the path is missing", at(filepath.Join(filepath.Dir(file), "missing")), true},
		{"its directory is missing too, as without the host's mounts", at("/no/such/directory/ns"), false},
		{"another namespace is there", at(two.Path), true},
		{"another namespace, but nothing to compare with", attachment.NetNS{Path: two.Path}, false},
		{"a plain file, as without the host's mounts", at(file), false},
		{"a path through a file", at(filepath.Join(file, "ns")), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.ns.Gone(); got != c.want {
				t.Errorf("gone is %t", got)
			}
		})
	}
	one.Remove()
	if !seen.Gone() {
		t.Error("a removed namespace is not gone")
	}
}

func TestStatNetNSWithoutOne(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"", dir, filepath.Join(dir, "missing"), "/dev/null"} {
		if got := attachment.StatNetNS(path); got != (attachment.NetNS{Path: path}) {
			t.Errorf("%q is identified as %+v", path, got)
		}
	}
}
